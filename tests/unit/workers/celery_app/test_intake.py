"""Intake of claims: each is one valid request of its queue, or there is a reason why it is not."""

from __future__ import annotations

import json
import time
from typing import Any

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workers.broker.claims import Attempt, Claim
from workers.broker.dead_letters import DeadLetter
from workers.broker.posting import MAX_MESSAGE_BYTES, prepare
from workers.celery_app.delivery.intake import Refused, first_error, message_of, read_request
from workers.messages import HIGH, Request

QUEUE = "search"
REPLY_TO = "llmi:replies:" + "0" * 32
REQUEST = Request(
    request_id="r",
    kind=QUEUE,
    payload={"query": "owls \ud83d"},
    deadline=time.time() + 600.0,
    owner="o",
    priority=HIGH,
    traceparent="00-1-2-01",
)
MESSAGE = prepare(REQUEST, REPLY_TO, time.time()).message
GOOD = json.loads(MESSAGE)
MAX_ATTEMPTS = 3


def claim(message: bytes | str, **changes: Any) -> Claim:
    raw = message if isinstance(message, bytes) else message.encode()
    fields: dict[str, Any] = {"request_id": "r", "number": 1, "left_s": 600.0, "reply_to": REPLY_TO}
    return Claim(queue=QUEUE, message=raw, **{**fields, **changes})


def why_refused(one: Claim) -> str:
    """Why a claim is refused; "" if it is not."""
    try:
        read_request(one, MAX_ATTEMPTS)
    except ValidationError as error:
        return first_error(error)
    except Refused as error:
        return str(error)
    return ""


def test_a_posted_message_is_valid() -> None:
    assert why_refused(claim(MESSAGE)) == ""


def test_a_request_gets_its_deadline_from_the_clock_of_redis() -> None:
    """Clocks of client and worker may differ, so the deadline is the time left, counted from now."""
    before = time.time()
    request = read_request(claim(MESSAGE, left_s=20.0), MAX_ATTEMPTS)
    assert before <= request.deadline - 20.0 <= time.time()
    assert request.model_copy(update={"deadline": REQUEST.deadline}) == REQUEST


def test_a_requeued_message_is_valid_until_it_has_lost_enough_workers() -> None:
    lost = tuple(Attempt(worker="w", started=1.0) for _ in range(MAX_ATTEMPTS))
    assert why_refused(claim(MESSAGE, number=9, lost=lost[1:])) == ""
    with pytest.raises(Refused, match="quarantined: 3 workers were lost") as refused:
        read_request(claim(MESSAGE, lost=lost), MAX_ATTEMPTS)
    assert refused.value.poison is not None
    assert refused.value.poison.request_id == "r"


def test_celerys_message_holds_the_request_of_the_claim() -> None:
    one, before = claim(MESSAGE, number=77, attempt=4, age_s=10.0), time.time()
    request = read_request(one, MAX_ATTEMPTS)
    message = message_of(one, request, "tag", channel=None, kill_after_s=20.0)
    [arguments, named, after] = message.payload
    assert Request.model_validate(arguments[0]) == request
    assert (named, after) == ({}, {})
    assert message.headers["task"] == "llmi.search"
    assert message.headers["id"] == message.properties["correlation_id"] == "r"
    assert (message.headers["attempt"], message.delivery_info["redelivered"]) == (4, True)
    assert before <= message.headers["posted"] + 10.0 <= time.time()
    assert (message.headers["traceparent"], message.properties["priority"]) == ("00-1-2-01", HIGH)
    assert (message.properties["reply_to"], message.delivery_tag) == (REPLY_TO, "tag")
    assert message.headers["timelimit"] == [20.0, None]
    assert not any(message.headers.get(name) for name in ("eta", "expires", "retries", "stamps", "group"))


@settings(max_examples=200)
@given(
    st.binary(max_size=200) | fuzz.json_values().map(fuzz.as_text).map(str.encode),
)
def test_any_other_bytes_are_refused(message: bytes) -> None:
    assert why_refused(claim(message))


@settings(max_examples=300)
@given(fuzz.nearly(GOOD))
def test_an_altered_request_is_valid_or_has_a_reason(message: Any) -> None:
    one = claim(fuzz.as_text(message))
    if why := why_refused(one):
        size = len(one.message)
        letter = DeadLetter(reason="invalid", detail=why, queue=QUEUE, since=0.0, size=size, payload="")
        assert DeadLetter.model_validate_json(letter.model_dump_json()).detail == why
        return
    request = read_request(one, MAX_ATTEMPTS)
    assert (request.kind, request.request_id) == (QUEUE, "r")
    sent = message_of(one, request, "tag", channel=None, kill_after_s=20.0)
    assert Request.model_validate(sent.payload[0][0]) == request


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("version", 1, "version"),
        ("version", 3, "a message of version 3, and this program reads version 2; use one release"),
        ("request_id", "another", "another request"),
        ("kind", "code", "another request"),
        ("more", {"__type__": "unheard of", "__value__": 1}, "more"),
        ("deadline", float("nan"), "deadline"),
        ("deadline", 10**400, "deadline"),
        ("limit_s", -1.0, "limit_s"),
        ("priority", 1, "priority"),
        ("priority", "high", "priority"),
        ("traceparent", "x" * 129, "traceparent"),
        ("payload", ["words"], "payload"),
    ],
)
def test_the_reason_names_the_field(field: str, value: Any, reason: str) -> None:
    assert reason in why_refused(claim(json.dumps({**GOOD, field: value})))


def test_an_entry_without_a_request_is_refused() -> None:
    assert "not the id of a request" in why_refused(claim(MESSAGE, number=0))


def test_a_long_message_is_refused_unread() -> None:
    assert "at most" in why_refused(claim(b"[" * (MAX_MESSAGE_BYTES + 1)))


def test_the_reason_repeats_no_value() -> None:
    assert "secret" not in why_refused(claim(json.dumps({**GOOD, "seed": "a secret"})))


def test_the_payload_is_validated_by_the_job() -> None:
    assert why_refused(claim(json.dumps({**GOOD, "payload": {"words": "x"}}))) == ""
