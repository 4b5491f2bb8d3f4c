"""The wire format equals Celery's, and Redis keeps one outcome per request."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import redis
import redis.asyncio
from queue_jobs import Order
from queue_requests import request_for

from workers.broker import outcomes
from workers.broker.dead_letters import payload_summary
from workers.broker.keys import replies_key
from workers.broker.outcomes import Attempt, commit, find_lost, record_attempt
from workers.celery_app.app import make_app
from workers.celery_app.backend import outcome_of
from workers.client.publisher import encode
from workers.errors import Cause
from workers.messages import CodePayload, Failure, Outcome, Request, Success
from workers.settings import QueueSettings

STREAM = replies_key("test")
GOOD = Success(source={"n": 1})
BAD = Failure(cause=Cause.WORKER_LOST)


@pytest.fixture
def raw(queue_settings: QueueSettings) -> redis.Redis:
    return redis.Redis.from_url(queue_settings.url)


def entry(message: bytes | str) -> tuple[dict[str, Any], Any]:
    """A message's envelope and body, without what must differ from one message to the next."""
    envelope = json.loads(message)
    envelope["properties"].pop("delivery_tag")
    body = json.loads(base64.b64decode(envelope.pop("body")))
    return envelope, body


def test_messages_are_those_of_apply_async(queue_settings: QueueSettings, raw: redis.Redis) -> None:
    request = request_for(Order(), timeout_s=100.0)
    ours, our_body = entry(encode(request, tag="t", reply_to=STREAM))
    limit_s = ours["headers"]["timelimit"][0]
    with make_app(queue_settings) as app:
        app.send_task(
            "llmi.code",
            [request.model_dump(mode="json")],
            task_id=request.request_id,
            reply_to=STREAM,
            time_limit=limit_s,
            argsrepr=payload_summary(request),
            kwargsrepr="",
            ignore_result=False,
        )
    message = raw.lpop("code")
    assert isinstance(message, bytes)
    celerys, celerys_body = entry(message)
    for option in ("argsrepr", "kwargsrepr"):  # send_task repeats its options among the properties
        assert celerys["properties"].pop(option) == ours["headers"][option]
    assert ours["headers"].pop("posted") > 0
    assert ours == celerys
    assert our_body == celerys_body
    assert limit_s == pytest.approx(100.0, abs=5.0)


def test_a_reply_stream_keeps_the_newest_entries(raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: an hour's soak had all of its 100,000 outcomes in one stream, at the end 60 MB of Redis."""
    assert outcomes.MAX_REPLIES <= 10_000
    monkeypatch.setattr(outcomes, "MAX_REPLIES", 200)
    for number in range(600):
        commit(raw, Outcome(request_id=f"r{number}", kind="code", result=GOOD), STREAM, 60)
    assert 200 <= raw.xlen(STREAM) <= 300  # Redis removes whole blocks of 100
    assert raw.xrevrange(STREAM, count=1)[0][1][b"id"] == b"r599"


@pytest.mark.parametrize(
    ("first", "second", "visible"),
    [(GOOD, BAD, GOOD), (BAD, GOOD, GOOD), (BAD, Failure(cause=Cause.TIMEOUT), BAD), (GOOD, Success(), GOOD)],
    ids=["failure after success", "success after failure", "second failure", "second success"],
)
def test_only_a_success_replaces_a_failure(
    first: Success | Failure, second: Success | Failure, visible: Success | Failure, raw: redis.Redis
) -> None:
    for result in (first, second):
        shown = commit(raw, Outcome(request_id="r", kind="code", result=result), STREAM, 60)
    assert Outcome.model_validate_json(shown).result == visible
    stored, _ = record_attempt(raw, "r", Attempt(worker="w", started=1.0), 60)
    assert stored == shown
    assert raw.xrevrange(STREAM, count=1)[0][1][b"outcome"] == shown


def test_each_attempt_is_recorded_once_until_there_is_an_outcome(raw: redis.Redis) -> None:
    first, second = (Attempt(worker="w", started=started) for started in (1.0, 2.0))
    assert record_attempt(raw, "r", first, 60) == (None, (first,))
    assert record_attempt(raw, "r", first, 60) == (None, (first,)), "the answer to the first was lost"
    assert record_attempt(raw, "r", second, 60) == (None, (first, second))
    commit(raw, Outcome(request_id="r", kind="code", result=BAD), "", 60)
    stored, attempts = record_attempt(raw, "r", Attempt(worker="w", started=3.0), 60)
    assert stored is not None
    assert attempts == ()
    assert raw.llen("llmi:attempts:r") == 2
    assert 0 < raw.ttl("llmi:attempts:r") <= 60


@pytest.mark.parametrize(
    ("exception", "cause"),
    [
        ("WorkerLostError", Cause.WORKER_LOST),
        ("TimeLimitExceeded", Cause.TIMEOUT),
        ("TaskRevokedError", Cause.CANCELLED),
        ("NotRegistered", Cause.BAD_MESSAGE),
        ("ZeroDivisionError", Cause.INTERNAL),
    ],
)
def test_what_celery_reports_gets_a_cause(exception: str, cause: Cause) -> None:
    error = {"exc_type": exception, "exc_message": ["why"], "exc_module": "somewhere"}
    outcome = outcome_of("r", "llmi.code", error, "FAILURE")
    assert isinstance(outcome.result, Failure)
    assert (outcome.request_id, outcome.kind, outcome.result.cause) == ("r", "code", cause)
    assert "why" in outcome.result.detail


async def test_a_request_is_missing_only_if_it_is_in_no_place(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    queued, held, ended, lost = (request_for(Order()) for _ in range(4))
    raw.lpush(
        "code", encode(queued, tag="1", reply_to=""), encode(request_for(Order()), tag="5", reply_to="")
    )
    raw.hset("unacked", "2-again", "[]")
    commit(raw, Outcome(request_id=ended.request_id, kind="code", result=GOOD), "", 60)
    asked = [
        (queued.request_id, ["1"]),
        (held.request_id, ["2", "2-again"]),
        (ended.request_id, ["3"]),
        (lost.request_id, ["4"]),
    ]
    async with redis.asyncio.Redis.from_url(queue_settings.url) as client:
        assert await find_lost(client, asked, ["code"]) == {lost.request_id}


@pytest.mark.parametrize("character", ["\x01", "🦆", "鹭", '"', "a"])
def test_the_longest_code_that_a_model_may_write_fits_into_a_message(character: str) -> None:
    whole = CodePayload(code=(character * 100_000)[:100_000])
    made = Request.make("code", whole, timeout_s=60)
    _, body = entry(encode(made, tag="t", reply_to=STREAM))
    assert body[0][0]["payload"] == made.payload
