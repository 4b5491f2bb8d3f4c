"""Frames between worker, zygote and child: a length, a JSON header, bytes.

Invariants: one answer per request; the zygote does not read what the child writes, it only limits its length.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
from typing import Any

_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size
ARMED = b"A"  # first byte of a child that is in its jail; everything after it is untrusted
UNARMED = b"S"  # first byte of a child that could not enter its jail, followed by the reason
_MAX_HEADER_BYTES = 64 << 10  # parsed JSON can take a hundred times its length
_PIPE_BYTES = 1 << 20  # the most that an unprivileged user may ask for


class FrameError(ValueError):
    """Bytes that are not a frame."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Build a frame: total length, header length, header, body."""
    return head(header, len(body)) + body


def head(header: dict[str, Any], body_bytes: int) -> bytes:
    """Build a frame up to its body."""
    text = json.dumps(header).encode()
    return _LENGTH.pack(LENGTH_BYTES + len(text) + body_bytes) + _LENGTH.pack(len(text)) + text


def length(prefix: bytes | bytearray | memoryview) -> int:
    """Read the length at the start of `prefix`: the number of bytes that follow it."""
    return _LENGTH.unpack_from(prefix)[0]


def unpack(content: bytes | bytearray | memoryview) -> tuple[dict[str, Any], memoryview]:
    """Split a frame without its total length into header and body, which is not copied.

    Raises `FrameError`.
    """
    if len(content) < LENGTH_BYTES:
        raise FrameError("too short")
    end = LENGTH_BYTES + length(content)
    if end > LENGTH_BYTES + _MAX_HEADER_BYTES:
        raise FrameError("the header is too long")
    try:
        header = json.loads(bytes(content[LENGTH_BYTES:end]))
    except (ValueError, RecursionError) as error:
        raise FrameError("the header is not JSON") from error
    if end > len(content) or not isinstance(header, dict):
        raise FrameError("the header is not an object of the stated length")
    return header, memoryview(content)[end:]


def widen(pipe: int) -> None:
    """Enlarge the buffer of a pipe, unless the user has reached the limit for such buffers."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_frame(descriptor: int, header: dict[str, Any], body: bytes | memoryview) -> None:
    write_all(descriptor, head(header, len(body)))
    write_all(descriptor, body)


def private_buffer(count: int) -> memoryview:
    """Allocate bytes that go back to the kernel when they are freed, so that no later fork sees them."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, max(count, 1), flags=flags))[:count]


def read_exactly(descriptor: int, count: int) -> memoryview:
    """Read `count` bytes of a blocking pipe into a private buffer.

    Raises `EOFError` when the other side is gone.
    """
    content = private_buffer(count)
    left = content
    while left:
        got = os.readv(descriptor, [left])
        if not got:
            raise EOFError
        left = left[got:]
    return content
