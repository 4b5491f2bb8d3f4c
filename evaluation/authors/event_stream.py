"""Parse server-sent events from a stream of bytes.

Invariants: the events do not depend on how the network splits the bytes, because an event is decoded when it
is complete; memory is bounded. Follows https://html.spec.whatwg.org/multipage/server-sent-events.html for
what chat endpoints send: `data` lines that end with LF or CRLF. Comments and other fields are left out.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 4 * 2**20


class UnreadableStream(ValueError):
    """The bytes are not an event stream."""


class EventStream:
    """`feed` returns the data of each event that became complete. Raises `UnreadableStream`."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of an incomplete line
        self._held = 0  # its bytes
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[str]:
        events = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._rest.append(line)
            events += self._take(self._line())
        self._rest.append(rest)
        self._held += len(rest)
        if self._size + self._held > MAX_EVENT_BYTES:
            raise UnreadableStream(f"an event is over {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> list[str]:
        """The last event, if the server left out the empty line after it."""
        return [*self._take(self._line()), *self._take(b"")]

    def _line(self) -> bytes:
        line, self._rest, self._held = b"".join(self._rest), [], 0
        return line.removesuffix(b"\r")

    def _take(self, line: bytes) -> list[str]:
        if line.startswith(b"data:"):
            self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
            self._size += len(line)
        if line or not self._data:
            return []
        whole, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return [whole.decode()]
        except UnicodeDecodeError as error:
            raise UnreadableStream("an event is not UTF-8") from error
