"""Typed access to the system calls that the jail needs and Python does not offer (ctypes, x86_64 and
aarch64).

Invariants: a failing call raises `OSError` with its errno and name; an unknown machine raises `OSError`
(ENOSYS) instead of issuing a wrong call number.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
import struct

MACHINE = platform.machine()
SUPPORTED = MACHINE in ("x86_64", "aarch64")
X86 = MACHINE == "x86_64"
VERSION = tuple(
    int("".join(itertools.takewhile(str.isdigit, part)) or 0) for part in platform.release().split(".")[:2]
)

# Call numbers. Those from 424 on are the same on every machine.
_PIVOT_ROOT = 155 if X86 else 41
_CAPSET = 126 if X86 else 91
_CLOSE_RANGE = 436
_MOUNT_SETATTR = 442

NEWNS, NEWUTS, NEWIPC, NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
NEWPID, NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def syscall(what: str, number: int, *args: int | bytes | ctypes.Array | None) -> int:
    """Issue a system call; integers are passed as C longs, bytes and arrays as pointers."""
    if not SUPPORTED:
        raise OSError(errno.ENOSYS, f"{what}: no call numbers for {MACHINE}")
    values = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _check(_libc.syscall(ctypes.c_long(number), *values), what)


def prctl(what: str, option: int, *args: object) -> None:
    words = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in (*args, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(ctypes.c_int(option), *words), what)


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {target}")


def unmount(target: str) -> None:
    """Detach a mount now; the kernel frees it with its last user."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def make_read_only(target: str) -> None:
    """Set a mount and all below it read-only (Linux 5.12)."""
    attributes = struct.pack("<QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = os.fsencode(target)
    syscall("mount_setattr", _MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, len(attributes))


def pivot_root_here() -> None:
    """Make the working directory, which must be a mount, the root of this mount namespace; detach the old
    root.
    """
    syscall("pivot_root", _PIVOT_ROOT, b".", b".")
    unmount(".")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability of this process, for good once no_new_privs is set."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    syscall("capset", _CAPSET, header, bytes(24))


def close_all_but(keep: int) -> None:
    """Close every descriptor above 2 except `keep`."""
    if keep > 3:
        os.closerange(3, keep)
    try:
        syscall("close_range", _CLOSE_RANGE, keep + 1, 0x7FFFFFFF, 0)
    except OSError:  # before Linux 5.9
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
