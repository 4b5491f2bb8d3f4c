"""The CPU as a platform of verl, through `PlatformRegistry`; verl 0.9.1 has none for it.

Selected by `VERL_PLATFORM=cpu`, never by detection. Ray's resource is a logical "GPU", so that verl places
trainer and rollout as usual; tensors are passed between processes in shared memory (`is_ipc_supported` is
False). Remove this when `VERL_PLATFORM=cpu` works without it:
`tests/unit/policy/cpu/test_verl_cpu.py::test_verl_has_no_cpu_platform`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _nothing(*_args: object) -> None:
    return None


def _resident_bytes(*_args: object) -> int:
    import psutil

    return psutil.Process().memory_info().rss


def _free_and_total_bytes(*_args: object) -> tuple[int, int]:
    import psutil

    memory = psutil.virtual_memory()
    return memory.available, memory.total


class _Device(types.ModuleType):
    """`torch.cpu` with the functions of `torch.cuda` that verl calls; memory is the process's resident
    memory.

    `is_available` means "an accelerator is visible": False skips verl's bookkeeping of GPU memory.
    """

    is_available: Callable[[], bool] = staticmethod(lambda: False)
    device_count: Callable[[], int] = staticmethod(lambda: 1)
    current_device: Callable[[], torch.device] = staticmethod(lambda: torch.device("cpu"))
    get_device_name: Callable[..., str] = staticmethod(lambda *_: "CPU")
    set_device = synchronize = empty_cache = ipc_collect = staticmethod(_nothing)
    reset_peak_memory_stats = staticmethod(_nothing)
    memory_allocated = memory_reserved = staticmethod(_resident_bytes)
    max_memory_allocated = max_memory_reserved = staticmethod(_resident_bytes)
    mem_get_info = staticmethod(_free_and_total_bytes)
    get_rng_state = staticmethod(lambda *_: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *_: torch.set_rng_state(state))
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)


DEVICE = _Device("policy.cpu.device")


class CpuPlatform(PlatformBase):
    """The methods of `PlatformBase` for a CPU."""

    set_device = synchronize = set_allocator_settings = empty_cache = cudart = _nothing
    profiler_start = profiler_stop = _nothing

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return DEVICE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False

    def current_device(self) -> Any:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False


def register() -> None:
    PlatformRegistry.register(platform="cpu")(CpuPlatform)
