"""The life of a request as a state machine, run against the program's own scripts in a real Redis.

The rules are what producers, workers, sweeps and crashes do to it, in any order: posting, taking, finishing
(also twice, also late), giving back, losing, cancelling, posting again. The model is a few sets in Python.
"""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coordinator.host.redis_server import EmbeddedRedis
from workers.broker.keys import STATS, outcome_key, replies_key
from workers.broker.outcomes import Attempt, commit, find_lost, record_attempt
from workers.client import blocking as submit
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, SearchPayload, Success

KIND = "search"
IDS = ("r-0", "r-1", "r-2")
STREAM = replies_key("machine")
MAY_WAIT = 2
TTL_S = 600
ids = st.sampled_from(IDS)
ends = st.sampled_from([Success(source={"by": "one"}), Success(source={"by": "two"}),
                        Failure(cause=Cause.WORKER_LOST), Failure(cause=Cause.NO_HIT)])  # fmt: skip


def request(request_id: str) -> Request:
    return Request.make(KIND, SearchPayload(query="a cat"), timeout_s=600.0, request_id=request_id)


class Lives(RuleBasedStateMachine):
    """`url` is set by the test."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.Redis.from_url(self.url)
        self.redis.flushall()
        self.queued: list[str] = []  # ids, the next one first
        self.held: list[tuple[str, bytes]] = []  # id and message
        self.visible: dict[str, Outcome] = {}
        self.attempts = dict.fromkeys(IDS, 0)
        self.received: list[tuple[str, Outcome]] = []
        self.clock = 0.0

    def teardown(self) -> None:
        self.redis.close()

    def absent(self, request_id: str) -> bool:
        held = {one for one, _ in self.held}
        return request_id not in self.queued and request_id not in held and request_id not in self.visible

    @rule(request_id=ids)
    def post(self, request_id: str) -> None:
        """Whoever posts, and posts again after its own death, posts what is nowhere, if there is room."""
        state = submit.post(self.redis, [request(request_id)], MAY_WAIT)[request_id]
        if not self.absent(request_id):
            assert state in {"queued", "running", "done"}
        elif len(self.queued) < MAY_WAIT:
            assert state == "posted"
            self.queued.append(request_id)
        else:
            assert state == "absent"

    @precondition(lambda self: self.queued)
    @rule()
    def take(self) -> None:
        """A worker takes the next message, writes down that it holds it, and begins."""
        request_id, message = self._pop()
        self.redis.hset("unacked", request_id, json.dumps([json.loads(message), "", KIND]))
        self.held.append((request_id, message))
        self.clock += 1.0
        this = Attempt(worker="a worker", started=self.clock)
        stored, attempts = record_attempt(self.redis, request_id, this, TTL_S)
        if request_id in self.visible:
            assert stored is not None
            assert Outcome.model_validate_json(stored) == self.visible[request_id]
        else:
            self.attempts[request_id] += 1
            assert (stored, len(attempts)) == (None, self.attempts[request_id])
            assert attempts[-1] == this

    @precondition(lambda self: self.queued)
    @rule()
    def lose(self) -> None:
        """A worker takes a message and dies before it has written anything down."""
        self._pop()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), end=ends, acknowledged=st.booleans())
    def finish(self, data: st.DataObject, end: Success | Failure, acknowledged: bool) -> None:
        """A worker stores an outcome; it may die before it has acknowledged."""
        place = data.draw(st.integers(0, len(self.held) - 1))
        request_id, _ = self.held[place]
        self._commit(request_id, end)
        if acknowledged:
            self.redis.hdel("unacked", request_id)
            del self.held[place]

    @rule(request_id=ids, end=ends)
    def finish_late(self, request_id: str, end: Success | Failure) -> None:
        """A worker that was thought dead, and whose message is long with another, stores an outcome."""
        if self.attempts[request_id]:
            self._commit(request_id, end)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """A lease ran out: the message goes back to the queue."""
        request_id, message = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.redis.hdel("unacked", request_id)
        self.redis.lpush(KIND, message)
        self.queued.append(request_id)

    @rule(request_id=ids)
    def cancel(self, request_id: str) -> None:
        self._commit(request_id, Failure(cause=Cause.CANCELLED))

    @invariant()
    def one_outcome_is_visible(self) -> None:
        for request_id in IDS:
            stored = self.redis.get(outcome_key(request_id))
            if request_id in self.visible:
                assert Outcome.model_validate_json(stored) == self.visible[request_id]
            else:
                assert stored is None

    @invariant()
    def the_poster_was_told_what_was_visible(self) -> None:
        entries = self.redis.xrange(STREAM)
        received = [(e[b"id"].decode(), Outcome.model_validate_json(e[b"outcome"])) for _, e in entries]
        assert received == self.received

    @invariant()
    def each_request_is_counted_once(self) -> None:
        assert int(self.redis.hget(STATS, f"{KIND}:n") or 0) == len(self.visible)

    @invariant()
    def what_is_nowhere_is_found_missing(self) -> None:
        async def look() -> set[str]:
            async with redis.asyncio.Redis.from_url(self.url) as client:
                return await find_lost(client, [(one, [one]) for one in IDS], [KIND])

        assert asyncio.run(look()) == {one for one in IDS if self.absent(one)}

    def _pop(self) -> tuple[str, bytes]:
        message = self.redis.rpop(KIND)
        assert isinstance(message, bytes)
        request_id = json.loads(message)["properties"]["correlation_id"]
        assert request_id == self.queued.pop(0)
        return request_id, message

    def _commit(self, request_id: str, end: Success | Failure) -> None:
        outcome = Outcome(request_id=request_id, kind=KIND, result=end)
        before = self.visible.get(request_id)
        if before is None or (outcome.ok and not before.ok):
            self.visible[request_id] = outcome
        visible = Outcome.model_validate_json(commit(self.redis, outcome, STREAM, TTL_S))
        assert visible == self.visible[request_id]
        self.received.append((request_id, visible))


@pytest.fixture
def lives(redis_server: EmbeddedRedis) -> type[Lives]:
    Lives.url = redis_server.url
    return Lives


def test_whatever_happens_to_a_request_it_has_one_outcome(lives: type[Lives]) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        lives,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=quiet
        ),
    )
