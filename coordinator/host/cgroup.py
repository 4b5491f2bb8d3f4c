"""Limits of this process's control groups (cgroups), versions 1 and 2, nested as by Slurm and systemd.

Any group above this process may have a limit; the lowest applies. The groups in `/proc/self/cgroup` are
looked up below each mount of a cgroup file system. `/proc/self/mountinfo` states which part of the tree a
mount shows.

Invariants:
- Files are only read.
- A file that is missing or unreadable limits nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
NO_LIMIT = 1 << 60  # version 1 writes about 2**63 where nothing is limited


@dataclass(frozen=True)
class Limits:
    """None where nothing is limited.

    `memory`: bytes. `free`: bytes of it that are not in use; page cache that can be dropped counts as free.
    `cpus`: the quota, in cores.
    """

    memory: int | None = None
    free: int | None = None
    cpus: float | None = None


@dataclass(frozen=True)
class _Mount:
    """One mount. `root`: the part of the tree that it shows at `point`. `controllers`: empty for version
    2."""

    root: PurePosixPath
    point: Path
    controllers: frozenset[str]


def limits(proc: Path = PROC, files: Path = Path("/")) -> Limits:
    """The limits of the process at `proc`. `files`: root of the file system with the mount points."""
    memory: list[tuple[int, int]] = []
    cpus: list[float] = []
    mounts = list(_mounts(proc))
    for controllers, path in _groups(proc):
        for mount in mounts:
            if mount.controllers != controllers and not (mount.controllers & controllers):
                continue
            for folder in _upwards(mount, path, files):
                memory += _memory(folder)
                cpus += _cpus(folder)
    return Limits(
        memory=min((limit for limit, _ in memory), default=None),
        free=min((max(0, limit - used) for limit, used in memory), default=None),
        cpus=min(cpus, default=None),
    )


def _groups(proc: Path) -> Iterator[tuple[frozenset[str], PurePosixPath]]:
    """The controllers of each hierarchy (none: version 2) and the group of the process in it."""
    for line in _text(proc / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" or set(names.split(",")) & {"memory", "cpu"}:
            yield frozenset(filter(None, names.split(","))), PurePosixPath(path.removesuffix(" (deleted)"))


def _mounts(proc: Path) -> Iterator[_Mount]:
    for line in _text(proc / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        options = rest[-1].split(",") if kind == "cgroup" and rest else []
        yield _Mount(PurePosixPath(_plain(fields[3])), Path(_plain(fields[4])), frozenset(options))


def _upwards(mount: _Mount, group: PurePosixPath, files: Path) -> Iterator[Path]:
    """The folders of a group and of all groups above it that the mount shows. A group that it does not show
    (in a container that sees its own group as the root) is looked up at its root.
    """
    inside = PurePosixPath("/")
    if ".." not in group.parts:
        if group.is_relative_to(mount.root):
            inside = PurePosixPath("/") / group.relative_to(mount.root)
        elif _below(files, mount, group).is_dir():
            inside = group
    for part in (inside, *inside.parents):
        yield _below(files, mount, part)


def _below(files: Path, mount: _Mount, group: PurePosixPath) -> Path:
    return files / str(mount.point).lstrip("/") / str(group).lstrip("/")


def _memory(folder: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes. A soft limit (memory.high) throttles the process, and counts as a limit."""
    statistics = dict(
        line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line
    )
    for limit, use, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.high", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        allowed = _number(folder / limit)
        if allowed is not None and allowed < NO_LIMIT:
            used = (_number(folder / use) or 0) - int(statistics.get(cache, "0"))
            yield allowed, max(0, used)
    above = int(statistics.get("hierarchical_memory_limit", NO_LIMIT))  # of groups that no mount shows
    if above < NO_LIMIT:
        yield above, _number(folder / "memory.usage_in_bytes") or 0


def _cpus(folder: Path) -> Iterator[float]:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota = _text(folder / "cpu.cfs_quota_us").strip()
        period = _text(folder / "cpu.cfs_period_us").strip()
    if quota.isdecimal() and period.isdecimal() and int(period):
        yield int(quota) / int(period)


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _plain(name: str) -> str:
    """A name from mountinfo without its octal escapes (blank, tab, line feed, backslash)."""
    for sign in " \t\n\\":
        name = name.replace(f"\\{ord(sign):03o}", sign)
    return name


def _text(file: Path) -> str:
    try:
        return os.fsdecode(file.read_bytes())
    except OSError:  # no such limit
        return ""
