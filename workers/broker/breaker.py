"""A circuit breaker: when a provider that keeps failing is left alone, and when it is tried again. Pure.

Closed, its requests run. After so many failures in a row it is open, and none runs. When its time is over it
is ripe: the next request tries the provider, alone; an answer closes the breaker, another failure opens it
for twice as long. Invariants: one request tries at a time, unless it says nothing for long; whatever the
provider answered, were it a refusal, closes it; what says nothing of the provider changes nothing; it is
never open for longer than `max_open_s` at once. Only what passes without a change of ours counts as a
failure: a provider that is down, a quota, a key that is refused, a silence. An answer that cannot be read
does not pass by waiting.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workers.errors import STORE, Cause
from workers.messages import Failure, Message, Success
from workers.settings import BreakerSettings

DOWN = frozenset({Cause.PROVIDER_DOWN, Cause.QUOTA, Cause.AUTH})
SHOWN = 200  # characters of the last failure
GRACE_S = 5.0  # after its deadline, a request that tries the provider is given up
HANGS = 2  # or when it has taken so many times as long as a provider may take to speak

State = Literal["closed", "open", "ripe", "trying"]
Verdict = Literal["answered", "down", "silent"]


class Breaker(Message):
    """The state of one. Times are Unix seconds of one clock, 0 for never. `failures` in a row, from `since`
    to `failed`, the last of them `why`; open until `until`, for the `openings`th time; `trying`: the id of
    the request that tries the provider, until `try_until` at the latest.
    """

    failures: int = Field(default=0, ge=0)
    since: float = 0.0
    failed: float = 0.0
    why: str = ""
    openings: int = Field(default=0, ge=0)
    until: float = 0.0
    trying: str = ""
    try_until: float = 0.0

    @property
    def closed(self) -> bool:
        return not self.openings


CLOSED = Breaker()


def state_of(breaker: Breaker, now: float) -> State:
    """Where it stands at `now`."""
    if breaker.closed:
        return "closed"
    if breaker.trying and now < breaker.try_until:
        return "trying"
    return "open" if now < breaker.until else "ripe"


def admit(
    breaker: Breaker, request_id: str, deadline: float, now: float, settings: BreakerSettings
) -> tuple[bool, Breaker]:
    """Whether the request may run, and the breaker after that: the first that comes when it is ripe tries
    the provider. One that was given to another worker under way tries it anew.
    """
    where = state_of(breaker, now)
    if where == "ripe" or (where == "trying" and breaker.trying == request_id):
        # Nobody tells of a try that dies with its worker: it must not keep the queue shut.
        until = min(max(deadline, now) + GRACE_S, now + HANGS * settings.hang_s)
        return True, breaker.model_copy(update={"trying": request_id, "try_until": until})
    return where == "closed", breaker


def verdict(result: Success | Failure, ran_s: float, hang_s: float) -> Verdict:
    """What the end of a job that ran for `ran_s` says of its provider. Failures that are the provider's name
    it; one that said nothing until the deadline has failed if it had `hang_s` to speak. A host that only its
    answer named (`HOST_DOWN`) shows that it answered.
    """
    if isinstance(result, Success) or result.cause is Cause.HOST_DOWN:
        return "answered"
    if result.provider in ("", STORE):
        return "silent"
    if result.cause is Cause.TIMEOUT:
        return "down" if ran_s >= hang_s else "silent"
    return "down" if result.cause in DOWN else "answered"


def record(
    breaker: Breaker, request_id: str, said: Verdict, why: str, now: float, settings: BreakerSettings
) -> Breaker:
    """The breaker after a job of `request_id` ended; `why`: the failure, if it is one."""
    if said == "answered":
        return CLOSED
    tried = breaker.trying == request_id
    freed = breaker.model_copy(update={"trying": "", "try_until": 0.0}) if tried else breaker
    if said == "silent":
        return freed
    failed = freed.model_copy(
        update={
            "failures": freed.failures + 1,
            "since": freed.since if freed.failures else now,
            "failed": now,
            "why": why[:SHOWN],
        }
    )
    if not tried and not (failed.closed and failed.failures >= settings.failures):
        return failed
    open_s = min(settings.open_s * 2**failed.openings, settings.max_open_s)
    return failed.model_copy(update={"openings": failed.openings + 1, "until": now + open_s})
