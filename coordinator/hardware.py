"""What this machine has for workers: GPUs that may be used, cores and memory.

Invariants: CUDA_VISIBLE_DEVICES is honoured, and a device is named as CUDA in a child process will understand
it; without a driver there is no GPU; in a container its limits count, not the host's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pynvml

DEVICES_ENV = "CUDA_VISIBLE_DEVICES"
CGROUP = Path("/sys/fs/cgroup")
MIB = 2**20
SHOWN = 12  # characters of a UUID: GPU- and eight more


@dataclass(frozen=True)
class Gpu:
    """`device`: its name in CUDA_VISIBLE_DEVICES. Name and memory are for people."""

    device: str
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Machine:
    gpus: tuple[Gpu, ...]
    cores: int
    memory_mib: int


def look(environ: Mapping[str, str] = os.environ, cgroup: Path = CGROUP) -> Machine:
    """This machine, as a process with `environ` may use it."""
    return Machine(gpus(environ), cores(cgroup), memory_mib(cgroup))


def gpus(environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA would show to a process with `environ`; without that variable all, by UUID."""
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


def called(device: str) -> str:
    """A device for people: "GPU 0", or the beginning of its UUID."""
    return f"GPU {device}" if device.isdecimal() else device[:SHOWN]


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB
    return Gpu(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle), memory)


def _visible(names: str, every: list[Gpu]) -> tuple[Gpu, ...]:
    """As CUDA reads the variable: in its order, up to the first name that is no device; each once.

    The names are handed on as they are, since CUDA may count devices in another order than the driver.
    """
    found: list[Gpu] = []
    for name in (part.strip() for part in names.split(",")):
        known = _named(name, every)
        if known is None:
            break
        if all(name != other.device for other in found):
            found.append(Gpu(name, known.name, known.memory_mib))
    return tuple(found)


def _named(name: str, every: list[Gpu]) -> Gpu | None:
    if name.isdecimal():
        return every[int(name)] if int(name) < len(every) else None
    if name.startswith("MIG-"):  # a part of a GPU, which only CUDA can look up
        return Gpu(name, "MIG instance", 0)
    matching = [gpu for gpu in every if name.startswith("GPU-") and gpu.device.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may keep busy."""
    allowed = len(os.sched_getaffinity(0))
    quota, _, period = _limit(cgroup / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def memory_mib(cgroup: Path = CGROUP) -> int:
    """Memory that this process may fill, in MiB."""
    total = psutil.virtual_memory().total
    limit = _limit(cgroup / "memory.max")
    return (min(total, int(limit)) if limit.isdecimal() else total) // MIB


def _limit(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no such limit
        return ""
