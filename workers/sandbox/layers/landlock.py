"""Landlock: limit by path which files a jailed child may access. Needs no privileges.

Invariants:
- every access right that the kernel's Landlock version knows is handled, and refused unless granted;
- nothing may be executed, and no link, device, socket or pipe created in the file system.

Older versions handle fewer rights; without Landlock `restrict` raises.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable

from workers.sandbox.layers import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # call numbers, the same on every machine
_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
_OF_FILES = WRITE_FILE | READ_FILE | TRUNCATE
_READ = READ_FILE | READ_DIR
_OWN = _READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE


def _handled(version: int) -> tuple[int, bytes]:
    """The file rights that this version knows, and the ruleset's attributes.

    Those are for files, TCP (since version 4), and signals and abstract sockets (since 6).
    """
    files = (1 << 13) - 1
    files |= REFER if version >= 2 else 0
    files |= TRUNCATE if version >= 3 else 0
    files |= 1 << 15 if version >= 5 else 0  # ioctl on devices
    attributes = struct.pack("<Q", files)
    attributes += struct.pack("<Q", 3) if version >= 4 else b""
    attributes += struct.pack("<Q", 3) if version >= 6 else b""
    return files, attributes


def restrict(readable: Iterable[str], devices: Iterable[str], own: str | None) -> None:
    """Restrict this process: read below `readable`, read and write `devices`, everything in the folder `own`.

    Paths that do not exist are skipped. Needs no_new_privs. Raises `OSError` without Landlock.
    """
    version = kernel.syscall("landlock", _CREATE, None, 0, 1)
    handled, attributes = _handled(version)
    ruleset = kernel.syscall("landlock_create_ruleset", _CREATE, attributes, len(attributes), 0)
    try:
        for path in readable:
            _grant(ruleset, path, _READ & handled)
        for path in devices:
            _grant(ruleset, path, (READ_FILE | WRITE_FILE) & handled)
        if own is not None:
            _grant(ruleset, own, _OWN & handled)
        kernel.syscall("landlock_restrict_self", _RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = rights if os.path.isdir(path) else rights & _OF_FILES
            rule = struct.pack("<Qi", rights, beneath)
            kernel.syscall("landlock_add_rule", _ADD, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(beneath)
