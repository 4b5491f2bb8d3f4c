"""When a circuit opens, is half-open and closes: examples, and properties of any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.broker.breaker import CLOSED, GRACE_S, HANGS, Breaker, admit, provider_state, record, state_of
from workers.errors import STORE, Cause
from workers.messages import Failure, Success
from workers.settings import BreakerSettings

SETTINGS = BreakerSettings(failures=3, open_s=4.0, max_open_s=10.0)
NOW = 1000.0


def failed(breaker: Breaker, times: int = 1, *, now: float = NOW, request_id: str = "r") -> Breaker:
    for _ in range(times):
        breaker = record(breaker, request_id, "down", "provider_down: 503", now, SETTINGS)
    return breaker


def half_open(openings: int = 1) -> tuple[Breaker, float]:
    """A breaker that is half-open for the `openings`th time, and when. Each trial before failed."""
    breaker, now = failed(CLOSED, 3), NOW
    for _ in range(openings - 1):
        now = breaker.until
        _, breaker = admit(breaker, "tries", now + 1, now, SETTINGS)
        breaker = failed(breaker, now=now, request_id="tries")
    return breaker, breaker.until


def test_failures_in_a_row_open_the_circuit_and_one_less_does_not():
    assert failed(CLOSED, 2).closed
    opened = failed(CLOSED, 3)
    assert (state_of(opened, NOW), state_of(opened, NOW + 3.9), state_of(opened, NOW + 4.0)) == (
        "open",
        "open",
        "half-open",
    )
    assert (opened.since, opened.failed, opened.why) == (NOW, NOW, "provider_down: 503")


def test_an_answer_resets_the_count_of_failures():
    reset = record(failed(CLOSED, 2), "r", "up", "", NOW, SETTINGS)
    assert reset == CLOSED
    assert failed(reset, 2).closed


def test_an_open_circuit_admits_nothing_and_a_half_open_one_a_single_trial():
    opened = failed(CLOSED, 3)
    assert admit(opened, "a", NOW + 60, NOW, SETTINGS) == (False, opened)
    may, trying = admit(opened, "a", NOW + 60, NOW + 4, SETTINGS)
    assert may
    assert admit(trying, "b", NOW + 60, NOW + 4, SETTINGS) == (False, trying)
    again, renewed = admit(trying, "a", NOW + 60, NOW + 5, SETTINGS)
    assert again, "another worker got the same request"
    assert renewed.try_until > trying.try_until


@pytest.mark.parametrize(("left_s", "held_s"), [(7.0, 7.0 + GRACE_S), (3600.0, HANGS * 20.0)])
def test_a_lost_trial_is_given_up_after_its_limit(left_s, held_s):
    opened, now = half_open()
    _, trying = admit(opened, "a", now + left_s, now, SETTINGS)
    assert not admit(trying, "b", now + 9000, now + held_s - 0.1, SETTINGS)[0]
    assert admit(trying, "b", now + 9000, now + held_s, SETTINGS)[0]


def test_a_trial_with_an_unknown_verdict_frees_the_circuit_for_the_next():
    opened, now = half_open()
    _, trying = admit(opened, "a", now + 60, now, SETTINGS)
    free = record(trying, "a", "unknown", "", now, SETTINGS)
    assert state_of(free, now) == "half-open"


def test_a_failed_trial_opens_the_circuit_for_twice_as_long_up_to_the_limit():
    waits = [breaker.until - breaker.failed for breaker, _ in map(half_open, (1, 2, 3, 4))]
    assert waits == [4.0, 8.0, 10.0, 10.0]


def test_a_successful_trial_closes_the_circuit():
    opened, now = half_open(3)
    _, trying = admit(opened, "a", now + 60, now, SETTINGS)
    assert record(trying, "a", "up", "", now, SETTINGS) == CLOSED


def test_failures_of_running_requests_do_not_extend_an_open_circuit():
    opened = failed(CLOSED, 3)
    assert failed(opened, 5, now=NOW + 2).until == opened.until


@pytest.mark.parametrize(
    ("result", "ran_s", "expected"),
    [
        (Success(), 1.0, "up"),
        (Failure(cause=Cause.PROVIDER_DOWN, provider="p"), 1.0, "down"),
        (Failure(cause=Cause.QUOTA, provider="p"), 1.0, "down"),
        (Failure(cause=Cause.AUTH, provider="p"), 1.0, "down"),
        (Failure(cause=Cause.PROMPT_REFUSED, provider="p"), 1.0, "up"),
        (Failure(cause=Cause.NO_HIT, provider="p"), 1.0, "up"),
        (Failure(cause=Cause.BAD_ANSWER, provider="p"), 1.0, "up"),
        (Failure(cause=Cause.VERDICT_UNREADABLE, provider="p"), 1.0, "up"),
        (Failure(cause=Cause.PROVIDER_DOWN), 1.0, "unknown"),
        (Failure(cause=Cause.BAD_PARAMS), 1.0, "unknown"),  # the provider was never asked
        (Failure(cause=Cause.BLOB_MISSING), 1.0, "unknown"),
        (Failure(cause=Cause.PROVIDER_DOWN, provider=STORE), 1.0, "unknown"),  # nowhere to put the picture
        (Failure(cause=Cause.INTERNAL), 1.0, "unknown"),
        (Failure(cause=Cause.TIMEOUT, provider="p"), 20.0, "down"),
        (Failure(cause=Cause.TIMEOUT, provider="p"), 19.9, "unknown"),  # it came to a worker too late
        (Failure(cause=Cause.TIMEOUT), 60.0, "unknown"),  # decoders were busy, or the job was slow by itself
        (Failure(cause=Cause.HOST_DOWN), 60.0, "up"),  # with a host that did not
    ],
)
def test_verdict_on_the_provider(result, ran_s, expected):
    assert provider_state(result, ran_s, hang_s=20.0) == expected


EVENTS = st.lists(
    st.tuples(st.sampled_from(["take", "up", "down", "unknown"]), st.floats(0, 30)), max_size=80
)


@given(EVENTS)
def test_any_history(events):
    breaker, now, row = CLOSED, NOW, 0
    running: list[str] = []
    tries: dict[str, float] = {}  # trials, and until when
    for number, (event, passed) in enumerate(events):
        now += passed
        name = f"r{number}"
        if event == "take":
            where = state_of(breaker, now)
            may, breaker = admit(breaker, name, now + 20, now, SETTINGS)
            assert may == (where in ("closed", "half-open"))
            if where == "half-open":
                assert not [until for until in tries.values() if now < until], "two trials at once"
                tries = {name: now + 20 + GRACE_S}
            running += [name] * may
        elif running:
            name = running.pop(0)
            row = {"up": 0, "down": row + 1, "unknown": row}[event]
            after = record(breaker, name, event, "why", now, SETTINGS)
            tries.pop(name, None)
            if event == "up":
                assert after == CLOSED
                tries = {}
            elif breaker.closed and not after.closed:
                assert row >= SETTINGS.failures
            elif event == "unknown":
                assert (after.openings, after.until) == (breaker.openings, breaker.until)
            assert after.until <= now + SETTINGS.max_open_s or after.until == breaker.until
            breaker = after
        assert Breaker.model_validate_json(breaker.model_dump_json()) == breaker
