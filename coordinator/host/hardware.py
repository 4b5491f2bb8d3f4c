"""Hardware of this machine that workers may use: GPUs, cores and memory.

Invariants:
- CUDA_VISIBLE_DEVICES is respected, and a device has the name by which CUDA finds it in a child process.
- Without a driver there is no GPU.
- In a container or a batch job its limits count, not the host's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import pynvml

from coordinator.host.cgroup import Limits, limits

DEVICES_ENV = "CUDA_VISIBLE_DEVICES"
MIB = 2**20
SHOWN = 12  # characters of a UUID: GPU- and eight more


@dataclass(frozen=True)
class Gpu:
    """One GPU. `device`: its name in CUDA_VISIBLE_DEVICES."""

    device: str
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Machine:
    gpus: tuple[Gpu, ...]
    cores: int
    memory_mib: int


def detect(environ: Mapping[str, str] = os.environ) -> Machine:
    """The hardware that a process with `environ` may use."""
    allowed = limits()
    return Machine(gpus(environ), cores(allowed), memory_mib(allowed))


def gpus(environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows to a process with `environ`; without CUDA_VISIBLE_DEVICES all, by UUID."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or none that answers
        return ()
    try:
        every = [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    visible = environ.get(DEVICES_ENV)
    return tuple(every) if visible is None else _visible(visible, every)


def display_name(device: str) -> str:
    """Short name of a device for messages: "GPU 0", or the beginning of its UUID."""
    return f"GPU {device}" if device.isdecimal() else device[:SHOWN]


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB
    return Gpu(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle), memory)


def _visible(names: str, every: list[Gpu]) -> tuple[Gpu, ...]:
    """The devices of CUDA_VISIBLE_DEVICES as CUDA reads it: in order, up to the first unknown name, each
    once.

    Names stay as they are, since CUDA may count devices in another order than the driver.
    """
    found: list[Gpu] = []
    for name in (part.strip() for part in names.split(",")):
        known = _find(name, every)
        if known is None:
            break
        if all(name != other.device for other in found):
            found.append(Gpu(name, known.name, known.memory_mib))
    return tuple(found)


def _find(name: str, every: list[Gpu]) -> Gpu | None:
    if name.isdecimal():
        return every[int(name)] if int(name) < len(every) else None
    if name.startswith("MIG-"):  # a part of a GPU, which only CUDA can look up
        return Gpu(name, "MIG instance", 0)
    matching = [gpu for gpu in every if name.startswith("GPU-") and gpu.device.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def cores(allowed: Limits) -> int:
    """Cores that this process may use."""
    mine = len(os.sched_getaffinity(0))
    return mine if allowed.cpus is None else max(1, min(mine, int(allowed.cpus)))


def memory_mib(allowed: Limits) -> int:
    """Memory that this process may use, in MiB."""
    total = psutil.virtual_memory().total
    return (total if allowed.memory is None else min(total, allowed.memory)) // MIB


def free_bytes(allowed: Limits) -> int:
    """Free memory that this process may use, in bytes: of the machine, and below the limit."""
    free = psutil.virtual_memory().available
    return free if allowed.free is None else max(0, min(free, allowed.free))
