"""Checks of the folders that a command writes into."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from coordinator.config.settings import RunConfig
from coordinator.state import resume
from workers.storage.cache import CACHE_ENV

MIB = 2**20
FREE_MIB = 512  # finds a full disk; what the checkpoints of a real model take is not known beforehand


def run_folder(run: Path) -> list[str]:
    """Problems of a new run's folder: it must not exist yet, and must be one that can be made."""
    if os.path.exists(run):  # False, unlike Path.exists, below a folder that may not be entered
        hint = "choose another name with --name, remove it, or resume that run with --resume"
        return [f"{run}: this run folder exists already; {hint}"]
    return [f"--dir: {problem}" for problem in _unwritable(run)]


def resumable(config: RunConfig, run: Path) -> list[str]:
    """Problems of resuming the run in this folder with this configuration."""
    return resume.problems(config, run) or [f"--dir: {problem}" for problem in _unwritable(run)]


def cache(path: Path) -> list[str]:
    """Problems of the folder in which `llmi demo` keeps what it builds."""
    return [f"{CACHE_ENV}: {problem}" for problem in _unwritable(path)]


def blobs(config: RunConfig) -> list[str]:
    """Problems of an image store in a folder of this machine. A relative one is in the run's folder."""
    path = Path(config.blobs.url.removeprefix("file://"))
    return [f"blobs.url: {problem}" for problem in _unwritable(path)] if path.is_absolute() else []


def _unwritable(path: Path) -> list[str]:
    nearest = next(above for above in (path.absolute(), *path.absolute().parents) if os.path.exists(above))
    if not nearest.is_dir():
        return [f"{path} cannot be made: {nearest} is no folder; name another"]
    if not os.access(nearest, os.W_OK | os.X_OK):
        return [f"{path}: may not write in {nearest}; name another folder, or permit it"]
    free = shutil.disk_usage(nearest).free
    if free < FREE_MIB * MIB:
        return [
            f"{path}: {nearest} has {free // MIB} MiB free and a run needs {FREE_MIB}; free some disk, "
            "or name another folder"
        ]
    return []
