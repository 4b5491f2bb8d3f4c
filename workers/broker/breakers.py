"""The breakers of all providers, in Redis: one for each queue and the outside service that its jobs ask.

`workers.broker.breaker` decides; here a decision is swapped in only if nothing has changed since it was made,
else it is made anew. Invariants: all processes of all nodes see one state, by Redis' clock; a Redis that is
away, or a state that cannot be read, never keeps a job from running.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import redis
from pydantic import ValidationError

from workers.broker.breaker import CLOSED, Breaker, admit, record, state_of, verdict
from workers.messages import Failure, Outcome, Request
from workers.redis_client import POLL_TIMEOUT_S, connect_redis
from workers.redis_script import Script
from workers.settings import BreakerSettings

logger = logging.getLogger(__name__)
KEY = "llmi:breakers"  # a hash; a field is queue and provider, with a blank between
KEPT_S = 86_400
TRIES = 50

READ_BREAKER = Script("workers.broker.scripts", "read_breaker")
READ_BREAKERS = Script("workers.broker.scripts", "read_breakers")
SWAP_BREAKER = Script("workers.broker.scripts", "swap_breaker")
T = TypeVar("T")


@dataclass(frozen=True)
class ProviderOutage:
    """A provider that is left alone, or being tried: it has failed from `since` to `failed` (Unix seconds),
    last by `why`.
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
    """The breaker of the jobs of `kind` that ask `provider`."""

    def __init__(self, client: redis.Redis, kind: str, provider: str, settings: BreakerSettings):
        self._redis = client
        self._field = f"{kind} {provider}"
        self._kind, self._provider = kind, provider
        self._settings = settings

    def admit(self, request: Request) -> ProviderOutage | None:
        """None: the request may run now. Else what keeps it."""

        def decide(breaker: Breaker, now: float) -> tuple[Breaker, ProviderOutage | None]:
            may, after = admit(breaker, request.request_id, request.deadline, now, self._settings)
            return after, None if may else self._down(breaker)

        return self._change(decide, None)

    def record(self, outcome: Outcome) -> ProviderOutage | None:
        """Take in how a job ended. What its provider suffers from if this failure may be waited out: the
        breaker is open now, and the request was not the one that tried the provider.
        """
        result = outcome.result
        said = verdict(result, outcome.finished - outcome.started, self._settings.hang_s)
        why = f"{result.cause}: {result.detail}" if isinstance(result, Failure) else ""

        def decide(breaker: Breaker, now: float) -> tuple[Breaker, ProviderOutage | None]:
            after = record(breaker, outcome.request_id, said, why, now, self._settings)
            waits = said == "down" and not after.closed and breaker.trying != outcome.request_id
            return after, self._down(after) if waits else None

        return self._change(decide, None)

    def _down(self, breaker: Breaker) -> ProviderOutage:
        return ProviderOutage(self._kind, self._provider, breaker.since, breaker.failed, breaker.why)

    def _change(self, decide: Callable[[Breaker, float], tuple[Breaker, T]], otherwise: T) -> T:
        """What `decide` says, once the state that it makes is stored; `otherwise` when that cannot be."""
        try:
            for _ in range(TRIES):
                stored, clock = READ_BREAKER(self._redis, [KEY], [self._field])
                before = _read(stored)
                after, answer = decide(before, _seconds(clock))
                if after == before:
                    return answer
                new = "" if after == CLOSED else after.model_dump_json()
                if SWAP_BREAKER(self._redis, [KEY], [self._field, stored or "", new, KEPT_S]):
                    self._tell(before, after)
                    return answer
        except (redis.RedisError, OSError) as error:
            logger.warning("the breaker of %s was not asked: %s", self._field, error)
        return otherwise

    def _tell(self, before: Breaker, after: Breaker) -> None:
        if before.closed and not after.closed:
            logger.warning("%s; it is left alone", self._down(after))
        elif after.closed and not before.closed:
            logger.warning("%s (%s) answers again", self._kind, self._provider)


@dataclass(frozen=True)
class Breakers:
    """All of them at `now`, by Redis' clock (Unix seconds)."""

    states: dict[tuple[str, str], Breaker]
    now: float

    def admits(self, kind: str, provider: str) -> bool:
        """Whether a request that is taken from the queue now would run, or try the provider."""
        return state_of(self.states.get((kind, provider), CLOSED), self.now) in ("closed", "ripe")

    @property
    def outages(self) -> list[ProviderOutage]:
        """The providers whose breakers are not closed, the longest first."""
        found = [
            ProviderOutage(kind, provider, breaker.since, breaker.failed, breaker.why)
            for (kind, provider), breaker in self.states.items()
            if not breaker.closed
        ]
        return sorted(found, key=lambda down: down.since)


def fetch_breakers(client: redis.Redis) -> Breakers:
    """All of them, from one moment. Raises `redis.RedisError`."""
    stored, clock = READ_BREAKERS(client, [KEY])
    states = {}
    for field, state in zip(stored[::2], stored[1::2], strict=True):
        kind, _, provider = field.decode().partition(" ")
        states[kind, provider] = _read(state)
    return Breakers(states, _seconds(clock))


def read_breakers(url: str) -> Breakers:
    """As `look`, on a connection of its own. Blocking; one round trip."""
    with connect_redis(url, POLL_TIMEOUT_S) as client:
        return fetch_breakers(client)


def _read(stored: bytes | None) -> Breaker:
    if not stored:
        return CLOSED
    try:
        return Breaker.model_validate_json(stored)
    except ValidationError:  # of another version
        return CLOSED


def _seconds(clock: list[bytes]) -> float:
    return int(clock[0]) + int(clock[1]) / 1e6
