"""Parse the stream of a chat completion into text, or into a typed failure. No input or output.

Invariants: the events do not depend on how the network splits the bytes, because an event is decoded when it
is complete; memory is bounded. Follows https://html.spec.whatwg.org/multipage/server-sent-events.html for
what chat endpoints send: `data` lines that end with LF or CRLF. Comments and other fields are left out.
"""

from __future__ import annotations

from typing import Any

from workers.errors import Cause, InfrastructureFault, JobError, ModelFault
from workers.providers.http import api
from workers.providers.http.refusals import is_content_code

NAME = "author"
DONE = "[DONE]"
MAX_EVENT_BYTES = 4 * 2**20


def chunks(call: api.Call, stream: EventStream, data: bytes) -> list[dict[str, Any]]:
    """The `chat.completion.chunk`s that `data` completes; no data is the stream's end."""
    try:
        events = stream.feed(data) if data else stream.close()
        found = [api.parsed(event) for event in events if event != DONE]
    except ValueError as error:
        detail = f"its stream cannot be read: {error}"[:300]
        raise InfrastructureFault(Cause.BAD_ANSWER, detail, provider=NAME) from error
    for chunk in found:
        if not isinstance(chunk, dict):
            raise InfrastructureFault(Cause.BAD_ANSWER, "an event is not a JSON object", provider=NAME)
        if chunk.get("error"):
            raise _stream_error(call, chunk)
    return found


def _stream_error(call: api.Call, chunk: dict[str, Any]) -> JobError:
    """The failure of a server that had answered 200."""
    failure = author_failure(api.refused(call, 200, chunk))
    if isinstance(failure, ModelFault):
        return failure
    error = chunk["error"]
    words = call.redacted(error.get("message") if isinstance(error, dict) else error) or "without a message"
    return InfrastructureFault(Cause.PROVIDER_DOWN, f"it gave up: {words}", provider=NAME)


def author_failure(failure: JobError) -> JobError:
    """`failure`, as an infrastructure failure where the prompt is too long."""
    if isinstance(failure, api.TooLarge):
        return InfrastructureFault(Cause.BAD_ANSWER, failure.detail, provider=NAME)
    return failure


def delta(chunk: dict[str, Any]) -> tuple[str, str]:
    """The text of a chunk and its finish_reason, each "" when there is none. Separate thoughts
    (`reasoning_content`) are left out.
    """
    try:
        choices = chunk.get("choices") or ()
        if not choices:
            return "", ""  # a chunk with usage numbers only
        part = choices[0].get("delta") or {}
        text, declined = part.get("content") or "", part.get("refusal") or ""
        reason = choices[0].get("finish_reason") or ""
        if declined and isinstance(declined, str):
            raise ModelFault(Cause.PROMPT_REFUSED, "the model declines to write it", provider=NAME)
        if isinstance(text, str) and isinstance(reason, str):
            return text, reason
    except (AttributeError, LookupError, TypeError):
        pass
    raise InfrastructureFault(Cause.BAD_ANSWER, "an event has no choices[0].delta", provider=NAME)


def truncated(reason: str) -> bool:
    """Whether the token budget ended the text. Raises for a finish_reason of an incomplete text."""
    if reason == "length":
        return True
    if is_content_code(reason):
        raise ModelFault(
            Cause.PROMPT_REFUSED, "the endpoint's content filter stopped the text", provider=NAME
        )
    if reason in ("", "abort", "error"):
        why = f"ended with finish_reason {reason!r}" if reason else "ended without a finish_reason"
        raise InfrastructureFault(Cause.PROVIDER_DOWN, f"the text is incomplete: it {why}", provider=NAME)
    return False


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
