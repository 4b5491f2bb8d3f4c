"""seccomp: the system-call filter of the jail, an allow list compiled to classic BPF.

Invariants:
- a call that is not listed is refused: EPERM, or ENOSYS for calls newer than the list, so that the C library
  falls back;
- a call of a foreign architecture kills the process;
- no process may start, and threads only where the kernel counts them;
- the only signal that a child can send is SIGABRT to itself, so a SIGKILL is never its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

from workers.sandbox.layers import kernel

ALLOW, _KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LD, _JEQ, _JGE, JSET, RET = 0x20, 0x15, 0x35, 0x45, 0x06
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_NEWEST = 424  # numbers from here on came with Linux 5.1 and later

# name: (x86_64, aarch64); None where that machine has no such call.
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # files, by descriptor or by a path that Landlock checks
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62), "close": (3, 57),
    "close_range": (436, 436), "open": (2, None), "openat": (257, 56), "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "fstatfs": (138, 44),
    "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "getdents": (78, None), "getdents64": (217, 61), "readlink": (89, None),
    "readlinkat": (267, 78), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "ftruncate": (77, 46), "fallocate": (285, 47),
    "flock": (73, 32), "fadvise64": (221, 223), "sendfile": (40, 71), "copy_file_range": (326, 285),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "mincore": (27, 232), "membarrier": (324, 283),
    # threads, time, signals to itself
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "arch_prctl": (158, None), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "getcpu": (309, 168), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "exit": (60, 93), "exit_group": (231, 94),
    # information
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150),
    "getgroups": (115, 158), "getpgrp": (111, None), "getpgid": (121, 155), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "getrlimit": (97, 163), "getrandom": (318, 278),
}  # fmt: skip

# Calls that return 0 and do nothing. A process that waits for a disk cannot be killed, and nothing but the
# job reads its files.
_NO_OPS = {"fsync": (74, 82), "fdatasync": (75, 83), "msync": (26, 227)}

Instruction = tuple[int, int, int, int]


def number_of(pair: tuple[int | None, int | None]) -> int | None:
    return pair[0 if kernel.X86 else 1]


def load(argument: int, *, high: bool = False) -> Instruction:
    """Load half of a call's argument (little-endian machines)."""
    return (LD, 0, 0, 16 + 8 * argument + (4 if high else 0))


def _refuse(code: int = errno.EPERM) -> Instruction:
    return (RET, 0, 0, ERRNO | code)


def only(number: int, body: list[Instruction]) -> list[Instruction]:
    """Apply `body`, which must return on every path, to this call only."""
    return [(_JEQ, 0, len(body), number), *body]


def _one_of(argument: int, values: tuple[int, ...], otherwise: Instruction) -> list[Instruction]:
    """Allow the call if the low word of an argument is one of `values`."""
    body: list[Instruction] = [load(argument)]
    for value in values:
        body += [(_JEQ, 0, 1, value), (RET, 0, 0, ALLOW)]
    return [*body, otherwise]


def _conditional(pid: int, threads: bool) -> list[Instruction]:
    """Rules for calls that are allowed for some arguments only. `pid`: the process that the filter is for."""
    x86 = kernel.X86
    thread, new_namespace = 0x00010000, 0x7E020000
    allow: Instruction = (RET, 0, 0, ALLOW)
    # The error that the kernel returns for one thread too many.
    start = allow if threads else _refuse(errno.EAGAIN)
    clone = [load(0), (JSET, 0, 2, thread), (JSET, 1, 0, new_namespace), start, _refuse()]
    tgkill = [load(0), (_JEQ, 0, 3, pid), load(2), (_JEQ, 0, 1, signal.SIGABRT), allow, _refuse()]
    # Reading limits is fine; setting one (any pointer to new values) is not.
    prlimit = [
        *(load(0), (_JEQ, 0, 5, 0), load(2), (_JEQ, 0, 3, 0), load(2, high=True), (_JEQ, 0, 1, 0)),
        *(allow, _refuse()),
    ]
    duplicate, get_flags, locks, duplicate_cloexec = 0, (1, 2, 3, 4), (5, 6, 7, 36, 37, 38), 1030
    fcntl = _one_of(1, (duplicate, *get_flags, *locks, duplicate_cloexec), _refuse())
    terminal, close_on_exec = (0x5401, 0x5413, 0x541B), (0x5450, 0x5451)
    ioctl = _one_of(1, (*terminal, *close_on_exec), _refuse(errno.ENOTTY))
    set_name, get_name, name_memory = 15, 16, 0x53564D41
    program: list[Instruction] = []
    for number, body in (
        (56 if x86 else 220, clone),
        # clone3 passes its flags by pointer, which a filter cannot read; the C library falls back to clone.
        (435, [_refuse(errno.ENOSYS)]),
        (234 if x86 else 131, tgkill),
        (302 if x86 else 261, prlimit),
        (72 if x86 else 25, fcntl),
        (16 if x86 else 29, ioctl),
        (157 if x86 else 167, _one_of(0, (set_name, get_name, name_memory), _refuse())),
    ):
        program += only(number, body)
    return program


def program(pid: int, threads: bool) -> list[Instruction]:
    """The filter for the child `pid`, as (code, jump if true, jump if false, constant).

    `threads`: whether it may start threads.
    """
    code: list[Instruction] = [
        *((LD, 0, 0, 4), (_JEQ, 1, 0, _AUDIT_ARCH[kernel.MACHINE]), (RET, 0, 0, _KILL), (LD, 0, 0, 0)),
    ]
    if kernel.X86:
        code += [(_JGE, 0, 1, _X32), (RET, 0, 0, _KILL)]
    for pair in ALLOWED.values():
        number = number_of(pair)
        if number is not None:
            code += [(_JEQ, 0, 1, number), (RET, 0, 0, ALLOW)]
    for pair in _NO_OPS.values():
        code += only(pair[0 if kernel.X86 else 1], [_refuse(0)])
    code += _conditional(pid, threads)
    return [*code, (_JGE, 0, 1, _NEWEST), _refuse(errno.ENOSYS), _refuse()]


def assembled(instructions: list[Instruction]) -> bytes:
    """Encode instructions for the kernel."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def install(instructions: list[Instruction]) -> None:
    """Load a filter into this process and all its future threads. Needs no_new_privs. Raises `OSError`."""
    text = ctypes.create_string_buffer(assembled(instructions))
    header = struct.pack("@HP", len(instructions), ctypes.addressof(text))
    kernel.prctl("seccomp", kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, header)


def restrict(*, threads: bool) -> None:
    """Install the filter in this process. Raises `OSError` without seccomp."""
    if not kernel.SUPPORTED:
        raise OSError(errno.ENOSYS, f"seccomp: no call numbers for {kernel.MACHINE}")
    install(program(os.getpid(), threads))
