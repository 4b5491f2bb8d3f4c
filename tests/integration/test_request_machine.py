"""The life of a request as a state machine, run against the program's own scripts in a real Redis.

The rules are what clients, workers, sweeps, crashes and a Redis that loses writes do to it, in any order. The
model is a list of ids per level and one record per request.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

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
from workers.broker.claims import Claim, claim, renew, requeue, requeue_expired, requeue_unknown
from workers.broker.depths import read_depths
from workers.broker.keys import (
    LEVELS,
    STATS,
    held_key,
    outcome_key,
    queue_lists,
    record_key,
    replies_key,
)
from workers.broker.outcomes import commit, commit_cancelled
from workers.broker.posting import check, post, prepare
from workers.broker.request_status import find_request
from workers.errors import Cause, Fault
from workers.messages import Failure, Outcome, Priority, Request, SearchPayload, Success
from workers.settings import QueueSettings

KIND = "search"
IDS = ("r-0", "r-1", "r-2", "r-3")
WORKERS = ("a", "b")
STREAM = replies_key("machine")
MAY_WAIT = 3
TTL_S = 600
ids = st.sampled_from(IDS)
names = st.sampled_from(WORKERS)
levels = st.sampled_from(LEVELS)
ends = st.sampled_from([Success(source={"by": "one"}), Success(source={"by": "two"}),
                        Failure(cause=Cause.WORKER_LOST), Failure(cause=Cause.NO_HIT)])  # fmt: skip


@dataclass
class Record:
    level: int
    place: int
    held_by: str = ""
    claims: int = 0
    number: int = 0
    lost: list[str] = field(default_factory=list)
    notifies: bool = True


class Lives(RuleBasedStateMachine):
    """`url` is set by the test."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.Redis.from_url(self.url)
        self.redis.flushall()
        self.lists: dict[int, list[str]] = {level: [] for level in LEVELS}  # the next one first
        self.records: dict[str, Record] = {}
        self.visible: dict[str, Outcome] = {}
        self.claims: list[Claim] = []  # every one that was made
        self.notified: list[str] = []
        self.counted = 0
        self.places = dict.fromkeys(LEVELS, 0)

    def teardown(self) -> None:
        self.redis.close()

    # Clients

    @rule(request_id=ids, level=levels, again=st.booleans())
    def post(self, request_id: str, level: Priority, again: bool) -> None:
        """Post it, or reattach to it: then an infrastructure failure does not count."""
        one = prepare(request(request_id, level), STREAM, time.time())
        [answer] = post(self.redis, [one], MAY_WAIT, keep_failures=not again)
        assert answer.state == self._posted(request_id, level, again)
        if answer.state == "done":
            assert Outcome.model_validate_json(answer.outcome) == self.visible[request_id]

    def _posted(self, request_id: str, level: int, again: bool) -> str:
        record = self.records.get(request_id)
        if request_id in self.visible:
            result = self.visible[request_id].result
            if not again or isinstance(result, Success) or result.fault is Fault.MODEL:
                return "done"
            if record is not None:
                return "cancelled"
            del self.visible[request_id]
        if record is not None:
            return "running" if record.held_by else "waiting"
        if sum(map(len, self.lists.values())) >= MAY_WAIT:
            return "full"
        self.places[level] += 1
        self.records[request_id] = Record(level, self.places[level])
        self.lists[level].append(request_id)
        return "posted"

    @rule(request_id=ids)
    def cancel(self, request_id: str) -> None:
        async def call(outcome: Outcome) -> bytes:
            async with redis.asyncio.Redis.from_url(self.url) as client:
                return await commit_cancelled(client, outcome, TTL_S)

        outcome = Outcome.failed(request(request_id), Cause.CANCELLED)
        record = self.records.get(request_id)
        self._stored(outcome, notifies=record is not None and record.notifies)
        assert Outcome.model_validate_json(asyncio.run(call(outcome))) == self.visible[request_id]
        if record is not None and record.held_by:
            record.notifies = False
        else:
            self.records.pop(request_id, None)

    # Workers

    @rule(worker=names, count=st.integers(1, 3))
    def claim(self, worker: str, count: int) -> None:
        found = claim(self.redis, [KIND], count, worker, 60.0)
        expected = self._claimed(worker, count)
        assert [
            (one.request_id, one.attempt, [lost.worker for lost in one.lost]) for one in found
        ] == expected
        for one in found:
            self.records[one.request_id].number = one.number
            assert Request.model_validate_json(one.message).request_id == one.request_id
        self.claims += found

    def _claimed(self, worker: str, count: int) -> list[tuple[str, int, list[str]]]:
        """No request is older than the ageing of a level, so a level is empty before the next one's turn."""
        found = []
        for level in LEVELS:
            self._skip(level)
        for _ in range(count):
            level = next((one for one in LEVELS if self.lists[one]), None)
            if level is None:
                break
            request_id = self.lists[level].pop(0)
            record = self.records[request_id]
            record.held_by, record.claims = worker, record.claims + 1
            found.append((request_id, record.claims, list(record.lost)))
            self._skip(level)
        return found

    def _skip(self, level: int) -> None:
        """Remove the entries at the head that cancelled requests left."""
        entries = self.lists[level]
        while entries:
            record = self.records.get(entries[0])
            if record is not None and not record.held_by and record.level == level:
                return
            entries.pop(0)

    def _current(self, one: Claim) -> bool:
        record = self.records.get(one.request_id)
        return record is not None and bool(record.held_by) and record.number == one.number

    @precondition(lambda self: self.claims)
    @rule()
    def renew(self) -> None:
        """All claims that were ever made, so stale ones too."""
        found = renew(self.redis, self.claims, 60.0)
        current = [one for one in self.claims if self._current(one)]
        assert list(found.lost) == [one for one in self.claims if not self._current(one)]
        assert list(found.cancelled) == [one for one in current if one.request_id in self.visible]

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), why=st.sampled_from(["returned", "lost"]))
    def give_back(self, data: st.DataObject, why: str) -> None:
        one = data.draw(st.sampled_from(self.claims))
        current = {one.request_id} if self._current(one) else set()
        requeued = requeue(self.redis, [one], why)  # type: ignore[arg-type]
        assert [each.request_id for each in requeued] == self._requeued(current, attempt=why == "lost")

    @precondition(lambda self: any(record.held_by for record in self.records.values()))
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """Some leases expire, and a worker sweeps."""
        held = sorted(one for one, record in self.records.items() if record.held_by)
        expired = data.draw(st.sets(st.sampled_from(held), min_size=1))
        self.redis.zadd(held_key(KIND), dict.fromkeys(expired, 0))
        requeued = requeue_expired(self.redis, [KIND])
        assert sorted(each.request_id for each in requeued) == sorted(self._requeued(expired, attempt=True))

    @rule(worker=names)
    def forget(self, worker: str) -> None:
        """A worker gives back what it holds and does not know."""
        held = {one for one, record in self.records.items() if record.held_by == worker}
        requeued = requeue_unknown(self.redis, [KIND], worker, [])
        assert sorted(each.request_id for each in requeued) == sorted(self._requeued(held, attempt=False))

    def _requeued(self, request_ids: set[str], *, attempt: bool) -> list[str]:
        """Those of one list in order: the one that was posted first is the next."""
        found = []
        for request_id in sorted(request_ids, key=lambda one: -self.records[one].place):
            record = self.records[request_id]
            if request_id in self.visible:  # cancelled meanwhile
                del self.records[request_id]
                continue
            if attempt:
                record.lost.append(record.held_by)
            record.held_by = ""
            self.lists[record.level].insert(0, request_id)
            found.append(request_id)
        return found

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=ends)
    def finish(self, data: st.DataObject, end: Success | Failure) -> None:
        """A worker stores an outcome, also one that has lost the request meanwhile."""
        request_id = data.draw(st.sampled_from(self.claims)).request_id
        record = self.records.pop(request_id, None)
        outcome = Outcome(request_id=request_id, kind=KIND, result=end)
        self._stored(outcome, notifies=record is None or record.notifies)
        found = Outcome.model_validate_json(commit(self.redis, outcome, STREAM, TTL_S))
        assert found == self.visible[request_id]

    def _stored(self, outcome: Outcome, notifies: bool) -> None:
        before = self.visible.get(outcome.request_id)
        self.counted += before is None
        if before is None or (outcome.ok and not before.ok):
            self.visible[outcome.request_id] = outcome
        if notifies:
            self.notified.append(outcome.request_id)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Redis loses the record of a request, and what it holds."""
        request_id = data.draw(st.sampled_from(sorted(self.records)))
        self.redis.delete(record_key(request_id))
        self.redis.zrem(held_key(KIND), request_id)
        del self.records[request_id]

    # What holds after each step

    @invariant()
    def one_outcome_is_visible(self) -> None:
        stored = {one: self.redis.get(outcome_key(one)) for one in IDS}
        found = {one: Outcome.model_validate_json(text) for one, text in stored.items() if text}
        assert found == self.visible

    @invariant()
    def a_request_is_queued_or_held_or_neither(self) -> None:
        entries = [self.redis.lrange(key, 0, -1)[::-1] for key in queue_lists(KIND)]
        assert [[one.decode() for one in each] for each in entries] == list(self.lists.values())
        held = {one.decode() for one in self.redis.zrange(held_key(KIND), 0, -1)}
        assert held == {one for one, record in self.records.items() if record.held_by}
        for request_id in IDS:
            record = self.records.get(request_id)
            waits = record is not None and not record.held_by
            state = self.redis.hget(record_key(request_id), "state")
            assert state == (None if record is None else b"waiting" if waits else b"held")
            assert not waits or request_id in self.lists[record.level]

    @invariant()
    def the_client_was_notified_of_each_outcome(self) -> None:
        assert [fields[b"id"].decode() for _, fields in self.redis.xrange(STREAM)] == self.notified

    @invariant()
    def each_outcome_is_counted_once(self) -> None:
        assert int(self.redis.hget(STATS, f"{KIND}:n") or 0) == self.counted

    @invariant()
    def what_is_nowhere_is_found_lost(self) -> None:
        async def look() -> list[str]:
            async with redis.asyncio.Redis.from_url(self.url) as client:
                outcomes, lost = await check(client, IDS)
                assert outcomes.keys() == self.visible.keys()
                return lost

        nowhere = [one for one in IDS if one not in self.records and one not in self.visible]
        assert asyncio.run(look()) == nowhere

    @invariant()
    def depths_and_status_agree(self) -> None:
        depth = read_depths(self.url)[KIND]
        assert depth.by_level == tuple(map(len, self.lists.values()))
        assert depth.running == sum(bool(record.held_by) for record in self.records.values())
        for request_id in IDS:
            found = find_request(self.url, QueueSettings(), request_id, KIND)
            record = self.records.get(request_id)
            if request_id in self.visible:
                assert found.state == "done"
            elif record is None:
                assert found.state == "unknown"
            elif record.held_by:
                assert (found.state, found.worker) == ("running", record.held_by)
                assert found.attempts == len(record.lost) + 1
            else:
                assert found.state == "unserved"
                assert 0 <= found.before < max(1, depth.waiting)


def request(request_id: str, level: Priority = 3) -> Request:
    return Request.make(
        KIND, SearchPayload(query="a cat"), timeout_s=600.0, request_id=request_id, priority=level
    )


@pytest.fixture
def lives(redis_server: EmbeddedRedis) -> type[Lives]:
    Lives.url = redis_server.url
    return Lives


def test_a_request_has_one_outcome_under_any_events(lives: type[Lives]) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        lives,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=quiet
        ),
    )
