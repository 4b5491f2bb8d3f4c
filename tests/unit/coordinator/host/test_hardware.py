"""GPUs as CUDA shows them, cores and memory within the limits of the container; the driver is simulated."""

from __future__ import annotations

import os
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from coordinator.host import hardware
from coordinator.host.cgroup import Limits

UUIDS = ("GPU-aa11", "GPU-aa22", "GPU-bb33")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three GPUs at the boundary to the driver's library."""
    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(UUIDS),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: UUIDS[handle],
        "nvmlDeviceGetName": lambda handle: f"H{handle}",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=(handle + 1) * 2**30),
    }.items():
        monkeypatch.setattr(pynvml, name, answer)


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, UUIDS),
        ("", ()),
        ("-1", ()),
        ("2,0", ("2", "0")),
        ("1, 1", ("1",)),
        ("0,7,1", ("0",)),
        ("GPU-bb", ("GPU-bb",)),
        ("GPU-aa", ()),
        ("MIG-x,0", ("MIG-x", "0")),
        ("all", ()),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(driver, visible, devices):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert tuple(gpu.device for gpu in hardware.gpus(environ)) == devices


def test_gpus_have_their_names_and_memory(driver):
    assert hardware.gpus({"CUDA_VISIBLE_DEVICES": "1"}) == (hardware.Gpu("1", "H1", 2048),)


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert hardware.gpus({"CUDA_VISIBLE_DEVICES": "0"}) == ()


@pytest.mark.parametrize(("cpus", "cores"), [(None, 4), (2.5, 2), (0.1, 1), (9.0, 4)])
def test_cores_follow_the_limits_of_the_container(monkeypatch, cpus, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert hardware.cores(Limits(cpus=cpus)) == cores


@pytest.mark.parametrize(("limit", "mib"), [(None, 8192), (2**30, 1024), (2**40, 8192)])
def test_memory_follows_the_limits_of_the_container(monkeypatch, limit, mib):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**33))
    assert hardware.memory_mib(Limits(memory=limit)) == mib


@pytest.mark.parametrize(("free", "left"), [(None, 2**32), (2**30, 2**30), (2**40, 2**32)])
def test_free_memory_follows_the_limits_of_the_container(monkeypatch, free, left):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**32))
    assert hardware.free_bytes(Limits(free=free)) == left
