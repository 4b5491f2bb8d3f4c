"""Whether an entry of a queue's list is a message, and on our queues a request; whether what comes by
Celery's control channel is an order. Pure; no entry raises.

Invariant: what passes on a queue of ours is as `workers.client.publisher` writes it in every field that kombu
and Celery compute with, and holds one valid request; the rest would be tripped over later, some of it where
it ends the worker or takes a slot from it for ever. On other lists, such as Flower's, Celery's own messages
travel: there only what kombu itself reads is looked at.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

from kombu.utils.json import loads
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from workers.broker.dead_letters import MAX_BYTES
from workers.celery_app.backend import TASK_PREFIX
from workers.messages import Request
from workers.queues import QUEUES


class _Properties(BaseModel):
    delivery_tag: str = Field(min_length=1)
    delivery_info: dict[str, Any]
    body_encoding: str | None = None


class _Envelope(BaseModel):
    """What kombu reads of a message before anybody else does."""

    body: str
    headers: dict[str, Any]
    properties: _Properties
    content_type: str = Field(alias="content-type")
    content_encoding: str = Field(alias="content-encoding")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Route(_Strict):
    exchange: Literal[""]
    routing_key: str
    redelivered: bool = False


class _OurProperties(_Strict):
    delivery_tag: str = Field(min_length=1)
    delivery_mode: Literal[2] = 2
    delivery_info: _Route
    body_encoding: Literal["base64"]
    priority: int = Field(ge=0, le=9)
    correlation_id: str | None = None
    reply_to: str | None = Field(default=None, pattern=r"^(llmi:replies:[0-9a-z]{1,32})?$")


class _Headers(_Strict):
    """Of a task that is to run once and now."""

    task: str
    id: str
    lang: Literal["py"] = "py"
    timelimit: list[FiniteFloat | None] = Field(default=[None, None], min_length=2, max_length=2)
    retries: Literal[0] = 0
    replaced_task_nesting: Literal[0] = 0
    ignore_result: Literal[False] = False  # else its outcome would not be stored
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


class _OurEnvelope(_Strict):
    body: str
    headers: _Headers
    properties: _OurProperties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


class _ReplyTo(_Strict):
    exchange: Literal["reply.celery.pidbox"]
    routing_key: str


class _OrderHeaders(BaseModel):
    clock: int | None = Field(default=None, strict=True, ge=0, lt=2**63)


class _OrderProperties(_Properties):
    body_encoding: Literal["base64"]


class _OrderEnvelope(_Envelope):
    headers: _OrderHeaders  # type: ignore[assignment]
    properties: _OrderProperties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")


class _Order(_Strict):
    """All that kombu and Celery compute with in an order to workers, outside of any handler; what the order
    says, Celery tries within one. Orders by pattern, which neither Celery's commands nor Flower give, are
    none.
    """

    method: str
    arguments: dict[str, Any] | None = None
    destination: list[str] | None = None
    pattern: Literal["", None] = None
    matcher: Literal["", None] = None
    reply_to: _ReplyTo | None = None
    ticket: str | None = None


def order_problem(message: Any) -> str:
    """Why what came by Celery's control channel is no order; empty when it is one."""
    try:
        _Order.model_validate(_content(_OrderEnvelope.model_validate(message).body))
    except ValidationError as error:
        return first_error(error)
    except ValueError as error:
        return str(error)
    return ""


def why_invalid(entry: bytes, queue: str) -> str:
    """Why an entry of `queue` is no message, or no request of ours; empty when it is one."""
    if len(entry) > MAX_BYTES:
        return f"{len(entry)} bytes, and a message has at most {MAX_BYTES}"
    try:
        if queue in QUEUES:
            _check_ours(_OurEnvelope.model_validate_json(entry), queue)
        else:
            envelope = _Envelope.model_validate_json(entry)
            if envelope.properties.body_encoding == "base64":
                base64.b64decode(envelope.body)
    except ValidationError as error:
        return f"no message: {first_error(error)}"
    except binascii.Error as error:
        return f"no message: body: {error}"
    except ValueError as error:
        return f"no request: {error}"
    return ""


def first_error(error: ValidationError) -> str:
    """In one line, and without anything of what was validated but the names of its fields."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:100]
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _content(body: str) -> Any:
    """Raises `ValueError`."""
    try:
        return loads(base64.b64decode(body, validate=True).decode())
    except Exception as error:  # kombu gives JSON more types, and their decoders raise what they like
        raise ValueError(f"the body cannot be read: {type(error).__name__}") from error


def _check_ours(envelope: _OurEnvelope, queue: str) -> None:
    """Raises `ValueError`."""
    body = _content(envelope.body)
    if not isinstance(body, list) or len(body) != 3 or not isinstance(body[0], list):
        raise ValueError("the body is not arguments, named arguments and what is to follow")
    (arguments, named, after) = body
    if len(arguments) != 1 or named:
        raise ValueError(f"expected one argument, the request; got {len(arguments)}")
    if after and not (isinstance(after, dict) and not any(after.values())):
        raise ValueError("nothing may follow a task")
    task, route = envelope.headers.task, envelope.properties.delivery_info.routing_key
    if (task, route) != (f"{TASK_PREFIX}{queue}", queue):
        raise ValueError(f"the task {task[:100]!r} for {route[:100]!r}, in the queue {queue}")
    try:
        request = Request.model_validate(arguments[0])
    except ValidationError as error:
        raise ValueError(first_error(error)) from error
    ids = {envelope.headers.id, envelope.properties.correlation_id or request.request_id}
    if ids != {request.request_id} or request.kind != queue:
        raise ValueError(f"it holds another request, of kind {request.kind[:100]!r}")
