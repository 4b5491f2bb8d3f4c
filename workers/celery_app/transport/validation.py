"""Validates the entries of the queues' Redis lists before kombu and Celery read them.

Invariants:
- No entry raises: an invalid one has a reason.
- A valid entry has, in every field that kombu and Celery use, what `workers.client.publisher` writes, and
  holds one valid request. Anything else would fail later, in places where it ends the worker or occupies a
  slot for good.
"""

from __future__ import annotations

import base64
from typing import Any, Literal

from kombu.utils.json import loads
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from workers.broker.dead_letters import MAX_MESSAGE_BYTES
from workers.celery_app.backend import TASK_PREFIX
from workers.messages import Request


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Route(_Strict):
    exchange: Literal[""]
    routing_key: str
    redelivered: bool = False


class _Properties(_Strict):
    delivery_tag: str = Field(min_length=1)
    delivery_mode: Literal[2] = 2
    delivery_info: _Route
    body_encoding: Literal["base64"]
    priority: int = Field(ge=0, le=9)
    correlation_id: str | None = None
    reply_to: str | None = Field(default=None, pattern=r"^(llmi:replies:[0-9a-z]{1,32})?$")


class _Headers(_Strict):
    """Headers of a task that runs once and now: no retry, no ETA, no group, no stamps."""

    task: str
    id: str
    lang: Literal["py"] = "py"
    timelimit: list[FiniteFloat | None] = Field(default=[None, None], min_length=2, max_length=2)
    retries: Literal[0] = 0
    replaced_task_nesting: Literal[0] = 0
    ignore_result: Literal[False] = False  # True would not store the outcome
    argsrepr: str = ""
    kwargsrepr: str = ""
    origin: str = ""
    root_id: str | None = None
    posted: FiniteFloat = 0.0
    redelivered: bool = False
    shadow: None = None
    eta: None = None
    expires: None = None
    group: None = None
    group_index: None = None
    parent_id: None = None
    stamped_headers: None = None
    stamps: dict[str, Any] = Field(default={}, max_length=0)


class _Envelope(_Strict):
    body: str
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


def why_invalid(entry: bytes, queue: str) -> str:
    """The reason why a queue entry is not a valid message; an empty string when it is one."""
    if len(entry) > MAX_MESSAGE_BYTES:
        return f"{len(entry)} bytes, and a message has at most {MAX_MESSAGE_BYTES}"
    try:
        _check(_Envelope.model_validate_json(entry), queue)
    except ValidationError as error:
        return f"invalid message: {first_error(error)}"
    except ValueError as error:
        return f"invalid request: {error}"
    return ""


def first_error(error: ValidationError) -> str:
    """The first error in one line. It names fields, and repeats no value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:100]
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _decode(body: str) -> Any:
    """The content of a body. Raises `ValueError`."""
    try:
        return loads(base64.b64decode(body, validate=True).decode())
    except Exception as error:  # kombu's JSON has types of its own, with decoders that may raise anything
        raise ValueError(f"the body cannot be read: {type(error).__name__}") from error


def _check(envelope: _Envelope, queue: str) -> None:
    """Raise `ValueError` unless the envelope holds one request for `queue`."""
    body = _decode(envelope.body)
    if not isinstance(body, list) or len(body) != 3 or not isinstance(body[0], list):
        raise ValueError("the body is not a list of arguments, keyword arguments and options")
    arguments, named, options = body
    if len(arguments) != 1 or named:
        raise ValueError(f"expected one argument, the request; got {len(arguments)}")
    if options and not (isinstance(options, dict) and not any(options.values())):
        raise ValueError("callbacks, errbacks, chains and chords are not allowed")
    task, route = envelope.headers.task, envelope.properties.delivery_info.routing_key
    if (task, route) != (f"{TASK_PREFIX}{queue}", queue):
        raise ValueError(f"task {task[:100]!r} with routing key {route[:100]!r} in the queue {queue}")
    try:
        request = Request.model_validate(arguments[0])
    except ValidationError as error:
        raise ValueError(first_error(error)) from error
    ids = {envelope.headers.id, envelope.properties.correlation_id or request.request_id}
    if ids != {request.request_id} or request.kind != queue:
        raise ValueError(f"the body holds another request, of kind {request.kind[:100]!r}")
