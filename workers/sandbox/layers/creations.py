"""Limit the files that a job creates, where its folder is not a mount of limited size.

The kernel stops each call that would create a file or folder and notifies the zygote (seccomp user
notification). The answer depends only on the number created before, which the job cannot change. Together
with the limit on file size this limits the bytes on disk, including those of removed files that are still
open. Needs Linux 5.5, and no other listener for the filters of this process.

Invariants: a job gets no file without an answer; it never holds the descriptor that answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct

from workers.sandbox.layers import kernel, seccomp

_NEW_LISTENER, _SET_MODE_FILTER = 1 << 3, 1
_SECCOMP = 317 if kernel.X86 else 277
_NOTIFY = 0x7FC00000
_CREATES = os.O_CREAT | 0x400000  # and O_TMPFILE, without the bit that it shares with O_DIRECTORY
# Calls that create files if a flag is set, with the index of the flags; calls that always do.
_BY_FLAG = (((2, None), 1), ((257, 56), 2))  # open, openat
_ALWAYS = ((83, None), (258, 34))  # mkdir, mkdirat; the main filter refuses nodes and links
_NOTIFICATION, _ANSWER = struct.Struct("=QII64s"), struct.Struct("=QqiI")
_RECEIVE, _SEND = (
    3 << 30 | size << 16 | ord("!") << 8 | number
    for number, size in enumerate((_NOTIFICATION.size, _ANSWER.size))
)
_CONTINUE = 1


def program(answer: int) -> list[seccomp.Instruction]:
    """A filter that returns `answer` for calls that create files, and allows all others."""
    allow, ask = (seccomp.RET, 0, 0, seccomp.ALLOW), (seccomp.RET, 0, 0, answer)
    code: list[seccomp.Instruction] = [(seccomp.LD, 0, 0, 0)]
    for pair, argument in _BY_FLAG:
        number = seccomp.number_of(pair)
        if number is not None:
            code += seccomp.only(number, [seccomp.load(argument), (seccomp.JSET, 0, 1, _CREATES), ask, allow])
    for pair in _ALWAYS:
        number = seccomp.number_of(pair)
        if number is not None:
            code += seccomp.only(number, [ask])
    return [*code, allow]


def submit(channel: int) -> None:
    """Install the filter in this process, and send the notification descriptor through the socket `channel`.

    Raises `OSError` where the kernel has no notifications, or another process listens already.
    """
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)
    instructions = program(_NOTIFY)
    text = ctypes.create_string_buffer(seccomp.assembled(instructions))
    header = struct.pack("@HP", len(instructions), ctypes.addressof(text))
    listener = kernel.syscall("seccomp", _SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, header)
    with socket.socket(fileno=channel) as outward:
        socket.send_fds(outward, [b"L"], [listener])
    os.close(listener)


def forbid() -> None:
    """Let this process, which has no folder, create nothing.

    Needs no_new_privs. Raises `OSError` without seccomp.
    """
    seccomp.install(program(seccomp.ERRNO | errno.EACCES))


class CreationCounter:
    """The zygote's side: allows `most` creations.

    `channel`: a socket for the child's `submit`; close it here once the child has it.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._inward, outward = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = outward.detach()
        self._listener = -1
        self._poll: select.poll | None = None

    def watch(self, poll: select.poll) -> None:
        """Register the notifications of the child with `poll`."""
        self._poll = poll
        poll.register(self._inward, select.POLLIN)

    def serve(self, descriptor: int, event: int) -> bool:
        """Handle an event of `poll`. Returns whether it was for this counter."""
        assert self._poll is not None
        if descriptor == self._inward.fileno():
            self._poll.unregister(descriptor)
            with contextlib.suppress(OSError):
                _, received, _, _ = socket.recv_fds(self._inward, 1, 1)
                for self._listener in received:
                    self._poll.register(self._listener, select.POLLIN)
            return True
        if descriptor != self._listener:
            return False
        if event & select.POLLIN:
            self._answer()
        else:  # no process under the filter is left
            self._poll.unregister(descriptor)
        return True

    def close(self) -> None:
        """Stop answering: further calls that create files are refused."""
        self._inward.close()
        if self._listener >= 0:
            os.close(self._listener)

    def _answer(self) -> None:
        notification = bytearray(_NOTIFICATION.size)
        with contextlib.suppress(FileNotFoundError):  # the child died, or its call was interrupted
            fcntl.ioctl(self._listener, _RECEIVE, notification)
            cookie = _NOTIFICATION.unpack(notification)[0]
            allowed = self._left > 0
            self._left -= allowed
            answer = (0, _CONTINUE) if allowed else (-errno.EDQUOT, 0)
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(cookie, 0, *answer))
