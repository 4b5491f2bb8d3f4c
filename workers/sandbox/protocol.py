"""Frames between worker, zygote and child: a length, a JSON header, bytes.

Invariants: one request, one answer; whatever the child writes is opaque to the zygote, which only bounds its
length.
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
ARMED = b"A"  # first byte of a child that holds every layer; all that follows may be the model's doing
UNARMED = b"S"  # first byte of a child whose jail failed, followed by the reason
_MOST_HEADER_BYTES = 64 << 10  # JSON can take a hundred times its length
_PIPE_BYTES = 1 << 20  # what any user may ask for; a picture then passes in few steps


class FrameError(ValueError):
    """Bytes that are no frame."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """A frame: total length, header length, header, body."""
    return head(header, len(body)) + body


def head(header: dict[str, Any], body_bytes: int) -> bytes:
    """A frame up to its body."""
    text = json.dumps(header).encode()
    return _LENGTH.pack(LENGTH_BYTES + len(text) + body_bytes) + _LENGTH.pack(len(text)) + text


def length(prefix: bytes | bytearray | memoryview) -> int:
    """How many bytes follow the length that `prefix` starts with."""
    return _LENGTH.unpack_from(prefix)[0]


def unpack(content: bytes | bytearray | memoryview) -> tuple[dict[str, Any], memoryview]:
    """Header and body of a frame without its total length; the body is not copied. Raises `FrameError`."""
    if len(content) < LENGTH_BYTES:
        raise FrameError("too short")
    end = LENGTH_BYTES + length(content)
    if end > LENGTH_BYTES + _MOST_HEADER_BYTES:
        raise FrameError("the header is too long")
    try:
        header = json.loads(bytes(content[LENGTH_BYTES:end]))
    except (ValueError, RecursionError) as error:
        raise FrameError("the header is not JSON") from error
    if end > len(content) or not isinstance(header, dict):
        raise FrameError("the header is not an object of the stated length")
    return header, memoryview(content)[end:]


def widen(pipe: int) -> None:
    """Let a pipe hold more at once, where the user has not asked for too much of that already."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_frame(descriptor: int, header: dict[str, Any], body: bytes | memoryview) -> None:
    write_all(descriptor, head(header, len(body)))
    write_all(descriptor, body)


def room(count: int) -> memoryview:
    """`count` bytes that the machine takes back, and nobody after them finds, when they are let go."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, max(count, 1), flags=flags))[:count]


def read_exactly(descriptor: int, count: int) -> memoryview:
    """`count` bytes of a blocking pipe, in a room. Raises `EOFError` when the other side is gone."""
    content = room(count)
    left = content
    while left:
        got = os.readv(descriptor, [left])
        if not got:
            raise EOFError
        left = left[got:]
    return content
