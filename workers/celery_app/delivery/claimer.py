"""Claims requests from Redis for the free slots of this worker, and passes them to Celery.

Invariants:
- A worker holds no more requests than it has slots. A slot is free when its request has been acknowledged or
  rejected; a job that outlives the connection to Redis still occupies one.
- Claims do not belong to a connection. When Celery drops what it has not started (it reconnects, or shuts
  down), these requests go back to their queues.
- An invalid message is dead-lettered, a poison one quarantined; neither reaches Celery.
- Redis is called in the thread of the claimer, not in Celery's event loop. (Requeuing is the exception.)
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import redis
from kombu import Message
from pydantic import ValidationError

from workers import jobs
from workers.broker.claims import Claim, Why, claim, requeue, requeue_unknown
from workers.broker.keys import wake_key
from workers.broker.leases import granted_s
from workers.celery_app.delivery.intake import Refused, message_of, read_request, refuse
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
IDLE_S = 1.0  # an idle worker claims so often although nothing woke it
RETRY_S = 0.5
WARM_POLL_S = 0.1
LATE_S = 5.0  # how long a job may run over its time before its lease expires
KILL_S = LATE_S / 2  # and before its process is killed
# The same for a process that keeps a model. Its job checks its time after each step, which takes seconds.
# After so long it will not end any more.
WEDGED_S = 600.0


@dataclass
class Held:
    """A claim of this worker. `since`: monotonic seconds. `limit_s`: of its job. `returned`: the job
    was not lost; it ended because its circuit is open.
    """

    claim: Claim
    limit_s: float | None
    since: float = field(default_factory=time.monotonic)
    returned: bool = False

    def renewed_until(self, keeps_model: bool) -> float:
        """Monotonic seconds until which its lease is renewed: until its process is replaced at the latest."""
        return self.ends + LATE_S + (WEDGED_S if keeps_model else 0.0)

    @property
    def ends(self) -> float:
        """Monotonic seconds at which its job must have ended."""
        left_s = self.claim.left_s
        return self.since + (left_s if self.limit_s is None else min(left_s, self.limit_s))


def kill_after_s(held: Held, queues: Sequence[str]) -> float:
    """Seconds until the process of a job is killed, in a worker of `queues`."""
    over_s = WEDGED_S if jobs.keeps_model(queues) else KILL_S
    return max(1.0, held.ends - held.since + over_s)


class Claimer(threading.Thread):
    """Claims for the worker `name` that serves `queues` with `slots`, once it `is_warm`.

    It is the channel of the messages that it passes on: they acknowledge and reject themselves here.
    """

    no_ack_consumers = None  # part of a channel

    def __init__(
        self,
        settings: QueueSettings,
        name: str,
        queues: Sequence[str],
        slots: int,
        is_warm: Callable[[], bool],
    ):
        super().__init__(name="claimer", daemon=True)
        self._settings = settings
        self._name = name
        self._queues = tuple(queues)
        self._slots = slots
        self._is_warm = is_warm
        self._redis = connect_redis(settings.url, POLL_TIMEOUT_S)
        self._changed = threading.Condition()
        self._held: dict[str, Held] = {}  # by delivery tag
        self._paused: frozenset[str] = frozenset()
        self._incoming: deque[Message] = deque()
        # None while Celery has no connection
        self._call_soon: Callable[[Callable[[], None]], None] | None = None
        self._on_message: Callable[[Message], None] = lambda _: None
        self._unsure = False  # a call has failed, so Redis may name claims that this worker does not know

    # Called by Celery's event loop

    def resume(
        self, call_soon: Callable[[Callable[[], None]], None], on_message: Callable[[Message], None]
    ) -> None:
        """Claim from now on. `call_soon` calls in the event loop, from any thread; `on_message` gets the
        messages there.
        """
        with self._changed:
            self._call_soon, self._on_message = call_soon, on_message
            self._changed.notify_all()

    def stop_claiming(self, started: Iterable[str]) -> None:
        """Claim nothing until `resume`. Requeue all requests but those with the tags `started`."""
        with self._changed:
            self._call_soon = None
            self._incoming.clear()
            keep = set(started)
            dropped = [(tag, held) for tag, held in self._held.items() if tag not in keep]
            for tag, _ in dropped:
                del self._held[tag]
        if dropped:
            logger.warning("requeued %d requests that no process has started", len(dropped))
        self._requeue([held.claim for _, held in dropped], "returned")

    def _deliver(self) -> None:
        """Pass on the messages that were claimed since the last call, oldest first."""
        with self._changed:
            messages = list(self._incoming)
            self._incoming.clear()
        for message in messages:
            try:
                self._on_message(message)
            except Exception:  # no message may end the worker; the lease of this one expires
                logger.exception("%s could not be passed to Celery", message.delivery_tag)
                self.basic_reject(message.delivery_tag)

    def pause(self, queues: frozenset[str]) -> None:
        """Claim nothing from `queues`, until the next call."""
        with self._changed:
            self._paused = queues
            self._changed.notify_all()

    def held(self) -> dict[str, Held]:
        """The claims of this worker by delivery tag. May be called from any thread."""
        with self._changed:
            return dict(self._held)

    # Called by kombu's messages

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Free the slot. Storing the outcome has ended the delivery (`workers.broker.outcomes`)."""
        self._drop(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Free the slot, and put the request back to its queue if `requeue`."""
        held = self._drop(delivery_tag)
        if held is not None and requeue:
            self._requeue([held.claim], "returned" if held.returned else "lost")

    def mark_returned(self, delivery_tag: str) -> None:
        """Count no attempt when the request is rejected next."""
        if delivery_tag in self._held:
            self._held[delivery_tag].returned = True

    def _drop(self, tag: str) -> Held | None:
        with self._changed:
            held = self._held.pop(tag, None)
            self._changed.notify_all()
        return held

    def _requeue(self, claims: list[Claim], why: Why) -> None:
        if not claims:
            return
        try:
            requeue(self._redis, claims, why)
        except (redis.RedisError, OSError) as error:
            self._unsure = True
            logger.warning("%d requests are requeued later: %s", len(claims), error)

    # The thread

    def run(self) -> None:
        self._wait_until_warm()
        while True:
            queues, count = self._wait_for_slot()
            try:
                if self._unsure:
                    self._requeue_unknown()
                claims = claim(self._redis, queues, count, self._name, granted_s(self._settings.lease_s))
                self._receive(claims)
                if len(claims) < count:  # the queues are empty; what is posted from now on wakes a worker
                    self._redis.blpop([wake_key(queue) for queue in queues], IDLE_S)
            except (redis.RedisError, OSError) as error:
                self._unsure = True
                logger.warning("no requests claimed: %s", error)
                time.sleep(RETRY_S)
            except Exception:  # of any kind: without this thread the worker consumes nothing
                self._unsure = True
                logger.exception("no requests claimed")
                time.sleep(RETRY_S)

    def _wait_until_warm(self) -> None:
        """Return when every process of this worker has loaded its models: another worker may be idle now."""
        while not self._is_warm():
            time.sleep(WARM_POLL_S)

    def _wait_for_slot(self) -> tuple[tuple[str, ...], int]:
        """Wait for a free slot; returns the queues to claim from, and the number of free slots."""
        with self._changed:
            while True:
                queues = tuple(queue for queue in self._queues if queue not in self._paused)
                free = self._slots - len(self._held)
                if self._call_soon is not None and queues and free > 0:
                    return queues, free
                self._changed.wait()

    def _requeue_unknown(self) -> None:
        self._unsure = False
        known = [held.claim for held in self.held().values()]
        for one in requeue_unknown(self._redis, self._queues, self._name, known):
            logger.warning("requeued %s (%s): the answer to its claim was lost", one.request_id, one.queue)

    def _receive(self, claims: Sequence[Claim]) -> None:
        unwanted = []
        for one in claims:
            try:
                request = read_request(one, self._settings.max_attempts)
            except (Refused, ValidationError) as error:
                refuse(self._redis, one, error, self._settings.result_ttl_s)
                continue
            tag = one.tag
            with self._changed:
                if self._call_soon is None:
                    unwanted.append(one)
                    continue
                held = self._held[tag] = Held(one, request.limit_s)
                self._incoming.append(message_of(one, request, tag, self, kill_after_s(held, self._queues)))
                call_soon = self._call_soon
            call_soon(self._deliver)
        self._requeue(unwanted, "returned")
