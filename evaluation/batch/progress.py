"""The progress of a batch: count its items, post them, repost lost ones.

Invariants:
- The batch's folder is the source of truth; Redis only knows what is queued or running.
- An item that ended without a result gets one that states the cause.
- An item is lost when it has no result and is neither queued nor running. It is reposted when it has been
  lost for one lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import redis

from evaluation.batch.batch import Batch
from evaluation.batch.results import ItemResult, failures
from evaluation.payloads import EVALUATE_KIND, EvaluatePayload
from workers.client import blocking as queue
from workers.errors import Cause, InfrastructureFault
from workers.messages import LOW, Failure, Request
from workers.redis_client import SUBMIT_TIMEOUT_S, connect_redis
from workers.settings import REDIS_ENV, QueueSettings

QUEUE_S = 7 * 86_400.0  # how long an item may wait in the queue
FULL_QUEUE_POLL_S = 1.0
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """Counts of one batch.

    Items are `complete`, `incomplete` (something is missing; submit again), `queued`, `running` or `lost`
    (reposted after one lease). `judged` of `criteria` verdicts are there; `refused` of these count 0 by the
    evaluated model's fault. `failures`: by cause.
    """

    name: str
    items: int
    complete: int
    incomplete: int
    queued: int
    running: int
    lost: int
    judged: int
    refused: int
    criteria: int
    failures: dict[str, int]

    @property
    def in_progress(self) -> bool:
        return bool(self.queued or self.running or self.lost)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Evaluation:
    """One batch and its queue.

    Raises `ConfigError` when the batch does not exist, `InfrastructureFault` when Redis does not answer.
    """

    def __init__(self, batch: Batch):
        self.batch = batch
        self.manifest = batch.manifest()
        self.results: dict[str, ItemResult] = {}
        self._lost_since: dict[str, float] = {}  # item id to time.monotonic()
        self._seen: set[str] = set()  # requests that were queued or running at some poll

    def poll(self) -> Status:
        """Count the items; repost those that have been lost for one lease."""
        with connection(self.manifest.queue) as client:
            states = self._states(client)
            lost = [item_id for item_id, state in states.items() if state == "lost"]
            now = time.monotonic()
            self._lost_since = {item_id: self._lost_since.get(item_id, now) for item_id in lost}
            overdue = [i for i in lost if now - self._lost_since[i] >= self.manifest.queue.lease_s]
            queue.post(client, [self._request(item_id) for item_id in overdue], self._max_waiting)
        counted = [list(states.values()).count(state) for state in ("queued", "running", "lost")]
        results = self.results.values()
        complete = sum(result.complete for result in results)
        return Status(
            name=self.manifest.name,
            items=len(self.manifest.items),
            complete=complete,
            incomplete=len(self.manifest.items) - complete - sum(counted),
            queued=counted[0],
            running=counted[1],
            lost=counted[2],
            judged=sum(len(result.points) for result in results),
            refused=sum(result.refused for result in results),
            criteria=self.manifest.criteria,
            failures=failures(results),
        )

    def poll_confirmed(self, notify: Notify) -> Status:
        """As `poll`; when items seem lost, wait one lease and poll again, so that lost ones are reposted."""
        status = self.poll()
        if status.lost:
            wait_s = self.manifest.queue.lease_s
            notify(f"{status.lost} items are neither queued nor running; checking again in {wait_s:.0f} s")
            time.sleep(wait_s)
            status = self.poll()
        return status

    def post(self, item_ids: list[str], notify: Notify) -> list[str]:
        """Post the next round of these items, unless it is under way. Waits while the queue is full.

        Returns the ids that were posted by this call.
        """
        posted: set[str] = set()
        absent = {self._request_id(item_id): item_id for item_id in item_ids}
        notified = False
        while absent:
            with connection(self.manifest.queue) as client:
                requests = [self._request(item_id) for item_id in absent.values()]
                found = queue.post(client, requests, self._max_waiting)
            posted |= {absent[one] for one, state in found.items() if state == "posted"}
            self._seen |= {one for one, state in found.items() if state != "absent"}
            absent = {one: absent[one] for one, state in found.items() if state == "absent"}
            if absent and not notified:
                notify(
                    f"the queue {EVALUATE_KIND} is full: it holds {self._max_waiting} requests "
                    f"(queue.max_waiting); {len(absent)} items wait for room; the same command posts the "
                    "rest if this one is stopped"
                )
                notified = True
            if absent:
                time.sleep(FULL_QUEUE_POLL_S)
        return [item_id for item_id in item_ids if item_id in posted]

    def complete(self, item_id: str) -> bool:
        """Whether the item was complete at the last poll."""
        return item_id in self.results and self.results[item_id].complete

    @property
    def _max_waiting(self) -> int:
        return self.manifest.queue.max_waiting

    def _states(self, client: redis.Redis) -> dict[str, str]:
        """The state of each item without a complete result. Reads the results first."""
        self.results = self.batch.results(self.results)
        open_ids = [item.item_id for item in self.manifest.items if not self.complete(item.item_id)]
        found = queue.states(client, [self._request_id(item_id) for item_id in open_ids])
        ended = [item_id for item_id in open_ids if found[self._request_id(item_id)] == "done"]
        self._collect(client, ended)
        states: dict[str, str] = {}
        for item_id in open_ids:
            if self.complete(item_id):
                continue
            if item_id in ended:
                states[item_id] = "incomplete"
                continue
            request_id = self._request_id(item_id)
            if found[request_id] != "absent":
                self._seen.add(request_id)
                states[item_id] = found[request_id]
            else:
                done = item_id in self.results and request_id not in self._seen
                states[item_id] = "incomplete" if done else "lost"
        return states

    def _collect(self, client: redis.Redis, ended: list[str]) -> None:
        """Read the results of items that ended; write one with the cause where there is none."""
        outcomes = queue.outcomes(client, [self._request_id(item_id) for item_id in ended])
        for item_id in ended:
            outcome, round_ = outcomes.get(self._request_id(item_id)), self._round(item_id)
            result = self.batch.result(item_id)
            if result is None or result.round < round_:
                removed = Failure(cause=Cause.INTERNAL, detail="its result was removed")
                failure = outcome.result if outcome and isinstance(outcome.result, Failure) else removed
                blank = result or ItemResult(item_id=item_id, round=round_)
                result = blank.model_copy(
                    update={"round": round_, "failure": failure, "finished": time.time()}
                )
                self.batch.save_result(result)
            self.results[item_id] = result

    def _round(self, item_id: str) -> int:
        """The round that is under way or comes next."""
        return self.results[item_id].round + 1 if item_id in self.results else 0

    def _request_id(self, item_id: str) -> str:
        return self.manifest.request_id(item_id, self._round(item_id))

    def _request(self, item_id: str) -> Request:
        payload = EvaluatePayload(
            batch=self.batch.url,
            batch_id=self.manifest.batch_id,
            item_id=item_id,
            round=self._round(item_id),
        )
        return Request.make(
            EVALUATE_KIND,
            payload,
            timeout_s=QUEUE_S,
            owner=self.manifest.name,
            request_id=self._request_id(item_id),
            priority=LOW,
        )


@contextmanager
def connection(settings: QueueSettings) -> Iterator[redis.Redis]:
    """A connection to the queue's Redis. Raises `InfrastructureFault` for its errors."""
    client = connect_redis(settings.url, SUBMIT_TIMEOUT_S)
    try:
        yield client
    except redis.RedisError as error:
        raise InfrastructureFault(
            Cause.PROVIDER_DOWN,
            f"the queue's Redis does not answer ({type(error).__name__}); start it, or set {REDIS_ENV}, and "
            "give the same command again; results so far are kept",
        ) from error
    finally:
        client.close()
