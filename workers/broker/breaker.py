"""The state machine of one circuit breaker. Pure functions, no I/O.

States: `closed`, requests run; `open`, no request runs; `half-open`, the next request runs as a trial;
`trial`, one trial request runs. `settings.failures` failures in a row open the circuit. A successful trial
closes it, a failed trial opens it for twice as long.

Invariants:
- One trial runs at a time. A trial that does not end is given up after a limit.
- A circuit is never open for longer than `max_open_s` at once.
- Any answer of the provider closes the circuit, even a refusal. Only failures of an outage count: a provider
  that is down, a quota, a refused key, no answer within `hang_s`. An unreadable answer does not count.
- An outcome that says nothing about the provider changes nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workers.errors import STORE, Cause
from workers.messages import Failure, Message, Success
from workers.settings import BreakerSettings

DOWN = frozenset({Cause.PROVIDER_DOWN, Cause.QUOTA, Cause.AUTH})
MAX_WHY = 200  # characters of the last failure
GRACE_S = 5.0  # a trial is given up this long after its deadline ..
HANGS = 2  # .. or after this many times `hang_s`, whichever comes first

State = Literal["closed", "open", "half-open", "trial"]
ProviderState = Literal["up", "down", "unknown"]


class Breaker(Message):
    """The state of one circuit breaker, as stored. Times are Unix seconds of one clock, 0 for never.

    `failures` in a row, the first at `since`, the last at `failed` with the reason `why`. Open until `until`,
    for the `openings`th time. `trying`: request id of the trial, which is given up at `try_until`.
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
    """The state at `now` (Unix seconds)."""
    if breaker.closed:
        return "closed"
    if breaker.trying and now < breaker.try_until:
        return "trial"
    return "open" if now < breaker.until else "half-open"


def admit(
    breaker: Breaker, request_id: str, deadline: float, now: float, settings: BreakerSettings
) -> tuple[bool, Breaker]:
    """Decide whether a request may run; returns that and the new state.

    The first request at a half-open circuit becomes the trial. A trial that was redelivered to another worker
    starts again.
    """
    state = state_of(breaker, now)
    if state == "half-open" or (state == "trial" and breaker.trying == request_id):
        # A trial whose worker dies reports nothing: the limit lets another one run.
        until = min(max(deadline, now) + GRACE_S, now + HANGS * settings.hang_s)
        return True, breaker.model_copy(update={"trying": request_id, "try_until": until})
    return state == "closed", breaker


def provider_state(result: Success | Failure, ran_s: float, hang_s: float) -> ProviderState:
    """What the result of a job that ran for `ran_s` says about its provider.

    Failures of the provider name it. A time-out counts as down if the job ran for at least `hang_s`. A failed
    host that the provider's answer named (`HOST_DOWN`) shows that the provider is up.
    """
    if isinstance(result, Success) or result.cause is Cause.HOST_DOWN:
        return "up"
    if result.provider in ("", STORE):
        return "unknown"
    if result.cause is Cause.TIMEOUT:
        return "down" if ran_s >= hang_s else "unknown"
    return "down" if result.cause in DOWN else "up"


def record(
    breaker: Breaker,
    request_id: str,
    provider: ProviderState,
    why: str,
    now: float,
    settings: BreakerSettings,
) -> Breaker:
    """The state after a job ended. `provider`: its `provider_state`; `why`: the failure, if it is one."""
    if provider == "up":
        return CLOSED
    was_trial = breaker.trying == request_id
    free = breaker.model_copy(update={"trying": "", "try_until": 0.0}) if was_trial else breaker
    if provider == "unknown":
        return free
    failed = free.model_copy(
        update={
            "failures": free.failures + 1,
            "since": free.since if free.failures else now,
            "failed": now,
            "why": why[:MAX_WHY],
        }
    )
    if not was_trial and not (failed.closed and failed.failures >= settings.failures):
        return failed
    open_s = min(settings.open_s * 2**failed.openings, settings.max_open_s)
    return failed.model_copy(update={"openings": failed.openings + 1, "until": now + open_s})
