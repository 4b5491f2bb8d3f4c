"""Validation of queue entries: each is a valid request, or there is a reason why it is not."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.broker.dead_letters import MAX_MESSAGE_BYTES, DeadLetter
from workers.celery_app.transport.validation import why_invalid
from workers.client.publisher import encode
from workers.messages import Request

QUEUE = "search"
REPLY_TO = "llmi:replies:" + "0" * 32
REQUEST = Request(
    request_id="r", kind=QUEUE, payload={"query": "owls \ud83d"}, deadline=time.time() + 600.0, owner="o"
)


def opened(entry: str) -> dict[str, Any]:
    """A message with its body decoded."""
    message = json.loads(entry)
    return {**message, "body": json.loads(base64.b64decode(message["body"]))}


def closed(message: Any) -> bytes:
    """The list entry of a message that `opened` returned, altered or not."""
    if isinstance(message, dict) and "body" in message:
        body = base64.b64encode(fuzz.as_text(message["body"]).encode()).decode()
        message = {**message, "body": body}
    return fuzz.as_text(message).encode()


GOOD = opened(encode(REQUEST, tag="t", reply_to=REPLY_TO))


def test_a_posted_message_is_valid() -> None:
    assert why_invalid(closed(GOOD), QUEUE) == ""


def test_a_requeued_message_is_valid() -> None:
    """As kombu requeues it after its lease expired."""
    again = opened(encode(REQUEST, tag="t", reply_to=REPLY_TO))
    again["headers"]["redelivered"] = again["properties"]["delivery_info"]["redelivered"] = True
    assert why_invalid(closed(again), QUEUE) == ""


@settings(max_examples=200)
@given(
    st.binary(max_size=200) | fuzz.json_values().map(fuzz.as_text).map(str.encode),
)
def test_any_other_bytes_are_invalid(entry: bytes) -> None:
    assert why_invalid(entry, QUEUE)


@settings(max_examples=300)
@given(fuzz.nearly(GOOD))
def test_an_altered_request_is_valid_or_has_a_reason(message: Any) -> None:
    entry = closed(message)
    why = why_invalid(entry, QUEUE)
    if why:
        letter = DeadLetter(reason="invalid", detail=why, queue=QUEUE, since=0.0, size=len(entry), payload="")
        assert DeadLetter.model_validate_json(letter.model_dump_json()).detail == why
        return
    seen = opened(entry.decode())
    [arguments, named, after] = seen["body"]
    request = Request.model_validate(arguments[0])
    assert (request.kind, request.request_id) == (QUEUE, seen["headers"]["id"])
    assert not named
    assert not any((after or {}).values())
    assert seen["headers"].keys() <= {*GOOD["headers"], "redelivered"}
    assert seen["properties"].keys() <= GOOD["properties"].keys()
    assert not any(seen["headers"].get(name) for name in ("eta", "expires", "retries", "stamps", "group"))


def changed(path: str, value: Any) -> bytes:
    message = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    place: Any = message
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    place[int(last) if last.isdigit() else last] = value
    return closed(message)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("headers.eta", "2999-01-01T00:00:00", "headers.eta"),
        ("headers.timelimit", [1, 2, 3], "headers.timelimit"),
        ("headers.ignore_result", True, "headers.ignore_result"),
        ("headers.task", ["llmi.search"], "headers.task"),
        ("headers.task", "llmi.code", "llmi.code"),
        ("headers.chord", {"task": "llmi.code"}, "headers.chord"),
        ("headers.id", "another", "another request"),
        ("properties.reply_to", "unacked", "properties.reply_to"),
        ("properties.priority", "high", "properties.priority"),
        ("properties.delivery_info.routing_key", "code", "'code'"),
        ("more", {"__type__": "unheard of", "__value__": 1}, "more"),
        ("body.0.0.payload.query", {"__type__": "unheard of", "__value__": 1}, "cannot be read"),
        ("body.0.0.deadline", float("nan"), "deadline"),
        ("body.0.0.deadline", 10**400, "deadline"),
        ("body.0.0.kind", "code", "another request"),
        ("body.2", {"callbacks": [{"task": "llmi.code"}]}, "callbacks"),
    ],
)
def test_the_reason_names_the_field(path: str, value: Any, reason: str) -> None:
    assert reason in why_invalid(changed(path, value), QUEUE)


def test_a_long_entry_is_refused_unread() -> None:
    assert "at most" in why_invalid(b"[" * (MAX_MESSAGE_BYTES + 1), QUEUE)


def test_the_reason_repeats_no_value() -> None:
    assert "secret" not in why_invalid(changed("body.0.0.seed", "a secret"), QUEUE)


def test_the_payload_is_validated_by_the_job() -> None:
    assert why_invalid(changed("body.0.0.payload", {"words": "x"}), QUEUE) == ""
