"""Redis keeps one outcome per request, notifies its client and ends the delivery in the same step."""

from __future__ import annotations

import time

import pytest
import redis
import redis.asyncio
from queue_jobs import Order
from queue_requests import request_for
from raw_queue import queue_up

from workers.broker import outcomes
from workers.broker.claims import claim, renew, requeue
from workers.broker.keys import cancelled_key, held_key, outcome_key, record_key, replies_key
from workers.broker.outcomes import commit, commit_cancelled
from workers.broker.posting import check, prepare
from workers.celery_app.backend import outcome_of
from workers.errors import Cause
from workers.messages import CodePayload, Failure, Outcome, Request, Success
from workers.settings import QueueSettings

STREAM = replies_key("test")
GOOD = Success(source={"n": 1})
BAD = Failure(cause=Cause.WORKER_LOST)


def notified(raw: redis.Redis) -> list[str]:
    return [fields[b"id"].decode() for _, fields in raw.xrange(STREAM)]


def test_a_reply_stream_keeps_the_newest_entries(raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: after an hour's soak one stream held all 100,000 outcomes, 60 MB of Redis."""
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
    assert raw.get(outcome_key("r")) == shown
    assert notified(raw) == ["r", "r"], "the client reads again what a success may have replaced"
    assert 0 < raw.ttl(outcome_key("r")) <= 60


def test_an_outcome_ends_the_delivery_of_its_request(raw: redis.Redis) -> None:
    request = request_for(Order())
    queue_up(raw, request, reply_to=STREAM)
    [held] = claim(raw, ["code"], 1, "w", 60.0)
    commit(raw, Outcome(request_id=request.request_id, kind="code", result=GOOD), "", 60)
    assert notified(raw) == [request.request_id]
    assert raw.exists(record_key(request.request_id), held_key("code")) == 0
    assert requeue(raw, [held], "lost") == []
    assert raw.llen("code") == 0


def test_a_reply_stream_holds_ids_only(raw: redis.Redis) -> None:
    commit(raw, Outcome(request_id="r", kind="code", result=GOOD), STREAM, 60)
    assert [fields for _, fields in raw.xrange(STREAM)] == [{b"id": b"r"}]


@pytest.mark.parametrize("key", ["code", "llmi:stats", "llmi:held:code"])
def test_a_reply_stream_has_the_name_of_one(key: str, raw: redis.Redis) -> None:
    """A message cannot make a worker write to another key."""
    commit(raw, Outcome(request_id="r", kind="code", result=GOOD), key, 60)
    assert raw.type(key) in (b"none", b"hash")


async def test_a_cancelled_request_that_waits_is_not_claimed(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    first, second = (request_for(Order(), seed=seed) for seed in range(2))
    queue_up(raw, first, second)
    await cancel(queue_settings, first)
    assert [one.request_id for one in claim(raw, ["code"], 5, "w", 60.0)] == [second.request_id]


@pytest.mark.parametrize("why", ["returned", "lost"])
async def test_a_cancelled_request_that_is_held_is_not_run_again(
    why: str, queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    """Nor does its end recreate the reply stream of a client that was closed meanwhile."""
    request = request_for(Order())
    queue_up(raw, request, reply_to=STREAM)
    [held] = claim(raw, ["code"], 1, "w", 60.0)
    await cancel(queue_settings, request)
    assert raw.lrange(cancelled_key("w"), 0, -1) == [held.tag.encode()]
    assert renew(raw, [held], 60.0).cancelled == (held,)
    raw.delete(STREAM)
    assert requeue(raw, [held], why) == []
    assert raw.exists(record_key(request.request_id), held_key("code"), "code", STREAM) == 0


async def test_a_job_that_ends_after_its_cancellation_sends_no_notification(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    request = request_for(Order())
    queue_up(raw, request, reply_to=STREAM)
    claim(raw, ["code"], 1, "w", 60.0)
    await cancel(queue_settings, request)
    raw.delete(STREAM)
    commit(raw, Outcome(request_id=request.request_id, kind="code", result=BAD), STREAM, 60)
    assert raw.exists(record_key(request.request_id), held_key("code"), STREAM) == 0


async def cancel(queue_settings: QueueSettings, request: Request) -> None:
    async with redis.asyncio.Redis.from_url(queue_settings.url) as client:
        await commit_cancelled(client, Outcome.failed(request, Cause.CANCELLED), 60)


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
def test_each_exception_of_celery_has_a_cause(exception: str, cause: Cause) -> None:
    error = {"exc_type": exception, "exc_message": ["why"], "exc_module": "somewhere"}
    outcome = outcome_of("r", "llmi.code", error, "FAILURE")
    assert isinstance(outcome.result, Failure)
    assert (outcome.request_id, outcome.kind, outcome.result.cause) == ("r", "code", cause)
    assert "why" in outcome.result.detail


async def test_a_request_is_lost_only_if_it_is_in_no_place(
    queue_settings: QueueSettings, raw: redis.Redis
) -> None:
    queued, held, ended, lost = (request_for(Order(), seed=seed) for seed in range(4))
    queue_up(raw, held, queued)
    [one] = claim(raw, ["code"], 1, "w", 60.0)
    assert one.request_id == held.request_id
    commit(raw, Outcome(request_id=ended.request_id, kind="code", result=GOOD), "", 60)
    asked = [request.request_id for request in (queued, held, ended, lost)]
    async with redis.asyncio.Redis.from_url(queue_settings.url) as client:
        outcomes, missing = await check(client, asked)
    assert list(outcomes) == [ended.request_id]
    assert missing == [lost.request_id]


@pytest.mark.parametrize("character", ["\x01", "🦆", "鹭", '"', "a"])
def test_the_longest_code_that_a_model_may_write_fits_into_a_message(character: str) -> None:
    whole = CodePayload(code=(character * 100_000)[:100_000])
    made = Request.make("code", whole, timeout_s=60)
    message = prepare(made, STREAM, time.time()).message
    assert Request.model_validate_json(message).payload == made.payload
