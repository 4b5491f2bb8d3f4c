"""The circuit breakers of all providers, stored in Redis: one per queue and provider.

`workers.broker.breaker` decides. Here a decision is stored if the state has not changed since it was read;
otherwise the decision is made again on the new state.

Invariants: all processes of all nodes share one state, by the clock of Redis; a Redis that does not answer,
or a state that cannot be parsed, never keeps a job from running.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import redis
from pydantic import ValidationError

from workers.broker.breaker import CLOSED, Breaker, admit, provider_state, record, state_of
from workers.messages import Failure, Outcome, Request
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.redis_script import Script
from workers.settings import BreakerSettings

logger = logging.getLogger(__name__)
KEY = "llmi:breakers"  # hash: "QUEUE PROVIDER" -> state as JSON
TTL_S = 86_400
MAX_TRIES = 50

READ_BREAKER = Script("workers.broker.scripts", "read_breaker")
READ_BREAKERS = Script("workers.broker.scripts", "read_breakers")
SWAP_BREAKER = Script("workers.broker.scripts", "swap_breaker")
T = TypeVar("T")


@dataclass(frozen=True)
class ProviderOutage:
    """A provider with an open or half-open circuit: its queue, since when it fails, its last failure (Unix
    seconds), and why.
    """

    kind: str
    provider: str
    since: float
    failed: float
    why: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.kind} ({self.provider}) has been failing since {since}: {self.why}"


class ProviderBreaker:
    """The breaker of jobs of `kind` that call `provider`."""

    def __init__(self, client: redis.Redis, kind: str, provider: str, settings: BreakerSettings):
        self._redis = client
        self._field = f"{kind} {provider}"
        self._kind, self._provider = kind, provider
        self._settings = settings

    def admit(self, request: Request) -> ProviderOutage | None:
        """None if the request may run now, otherwise the outage."""

        def decide(breaker: Breaker, now: float) -> tuple[Breaker, ProviderOutage | None]:
            deadline = now + request.deadline - time.time()  # by the clock of Redis
            may, after = admit(breaker, request.request_id, deadline, now, self._settings)
            return after, None if may else self._outage(breaker)

        return self._change(decide, None)

    def record(self, outcome: Outcome) -> ProviderOutage | None:
        """Record how a job ended.

        Returns the outage if the request may be requeued because of it: the circuit is open, and the request
        was not the trial.
        """
        result = outcome.result
        found = provider_state(result, outcome.finished - outcome.started, self._settings.hang_s)
        why = f"{result.cause}: {result.detail}" if isinstance(result, Failure) else ""

        def decide(breaker: Breaker, now: float) -> tuple[Breaker, ProviderOutage | None]:
            after = record(breaker, outcome.request_id, found, why, now, self._settings)
            may_wait = found == "down" and not after.closed and breaker.trying != outcome.request_id
            return after, self._outage(after) if may_wait else None

        return self._change(decide, None)

    def _outage(self, breaker: Breaker) -> ProviderOutage:
        return ProviderOutage(self._kind, self._provider, breaker.since, breaker.failed, breaker.why)

    def _change(self, decide: Callable[[Breaker, float], tuple[Breaker, T]], default: T) -> T:
        """Store the state that `decide` returns; returns its answer, or `default` if that is not possible."""
        try:
            for _ in range(MAX_TRIES):
                stored, clock = READ_BREAKER(self._redis, [KEY], [self._field])
                before = _parse(stored)
                after, answer = decide(before, _seconds(clock))
                if after == before:
                    return answer
                new = "" if after == CLOSED else after.model_dump_json()
                if SWAP_BREAKER(self._redis, [KEY], [self._field, stored or "", new, TTL_S]):
                    self._log(before, after)
                    return answer
        except (redis.RedisError, OSError) as error:
            logger.warning("circuit breaker of %s not available: %s", self._field, error)
        return default

    def _log(self, before: Breaker, after: Breaker) -> None:
        if before.closed and not after.closed:
            logger.warning("circuit open: %s", self._outage(after))
        elif after.closed and not before.closed:
            logger.warning("circuit closed: %s (%s) answers", self._kind, self._provider)
        elif after.trying != before.trying and after.trying:
            logger.info("circuit half-open: %s tries %s (%s)", after.trying, self._kind, self._provider)


@dataclass(frozen=True)
class Breakers:
    """All breakers at `now`, by the clock of Redis (Unix seconds)."""

    states: dict[tuple[str, str], Breaker]
    now: float

    def admits(self, kind: str, provider: str) -> bool:
        """Whether a request that is consumed now would run."""
        return state_of(self.states.get((kind, provider), CLOSED), self.now) in ("closed", "half-open")

    @property
    def outages(self) -> list[ProviderOutage]:
        """The providers whose circuits are not closed, the longest outage first."""
        found = [
            ProviderOutage(kind, provider, breaker.since, breaker.failed, breaker.why)
            for (kind, provider), breaker in self.states.items()
            if not breaker.closed
        ]
        return sorted(found, key=lambda outage: outage.since)


def fetch_breakers(client: redis.Redis) -> Breakers:
    """All breakers at one moment. Raises `redis.RedisError`."""
    stored, clock = READ_BREAKERS(client, [KEY])
    states = {}
    for field, state in zip(stored[::2], stored[1::2], strict=True):
        kind, _, provider = field.decode().partition(" ")
        states[kind, provider] = _parse(state)
    return Breakers(states, _seconds(clock))


def read_breakers(url: str) -> Breakers:
    """As `fetch_breakers`, on a connection of its own. Blocking; one round trip."""
    with connect_redis(url, POLL_TIMEOUT_S) as client:
        return fetch_breakers(client)


def _parse(stored: bytes | None) -> Breaker:
    if not stored:
        return CLOSED
    try:
        return Breaker.model_validate_json(stored)
    except ValidationError:  # written by another version
        return CLOSED


def _seconds(clock: list[bytes]) -> float:
    return int(clock[0]) + int(clock[1]) / 1e6
