"""Frames between worker, zygote and child: a length, a JSON header, bytes.

Invariants: one request, one answer; whatever the child writes is opaque to the zygote, which only bounds its
length.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size
ARMED = b"A"  # first byte of a child that holds every layer; all that follows may be the model's doing
UNARMED = b"S"  # first byte of a child whose jail failed, followed by the reason


class FrameError(ValueError):
    """Bytes that are no frame."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """A frame: total length, header length, header, body."""
    text = json.dumps(header).encode()
    return _LENGTH.pack(LENGTH_BYTES + len(text) + len(body)) + _LENGTH.pack(len(text)) + text + body


def length(prefix: bytes | bytearray) -> int:
    """How many bytes follow the length that `prefix` starts with."""
    return _LENGTH.unpack_from(prefix)[0]


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a frame without its total length. Raises `FrameError`."""
    if len(content) < LENGTH_BYTES:
        raise FrameError("too short")
    end = LENGTH_BYTES + length(content)
    try:
        header = json.loads(content[LENGTH_BYTES:end])
    except (ValueError, RecursionError) as error:
        raise FrameError("the header is not JSON") from error
    if end > len(content) or not isinstance(header, dict):
        raise FrameError("the header is not an object of the stated length")
    return header, content[end:]


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_exactly(descriptor: int, count: int) -> bytes:
    """`count` bytes of a blocking pipe. Raises `EOFError` when the other side is gone."""
    chunks = bytearray()
    while len(chunks) < count:
        chunk = os.read(descriptor, min(count - len(chunks), 1 << 20))
        if not chunk:
            raise EOFError
        chunks += chunk
    return bytes(chunks)
