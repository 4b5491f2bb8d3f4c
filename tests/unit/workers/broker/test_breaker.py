"""When a provider is left alone, and when it is tried again: by hand, and as properties of any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.broker.breaker import CLOSED, GRACE_S, HANGS, Breaker, admit, record, state_of, verdict
from workers.errors import STORE, Cause
from workers.messages import Failure, Success
from workers.settings import BreakerSettings

SETTINGS = BreakerSettings(failures=3, open_s=4.0, max_open_s=10.0)
NOW = 1000.0


def failed(breaker: Breaker, times: int = 1, *, now: float = NOW, request_id: str = "r") -> Breaker:
    for _ in range(times):
        breaker = record(breaker, request_id, "down", "provider_down: 503", now, SETTINGS)
    return breaker


def ripe(openings: int = 1) -> tuple[Breaker, float]:
    """A breaker that was opened so many times, was tried each time as soon as it was ripe, and is again."""
    breaker, now = failed(CLOSED, 3), NOW
    for _ in range(openings - 1):
        now = breaker.until
        _, breaker = admit(breaker, "tries", now + 1, now, SETTINGS)
        breaker = failed(breaker, now=now, request_id="tries")
    return breaker, breaker.until


def test_so_many_failures_in_a_row_open_it_and_one_less_does_not():
    assert failed(CLOSED, 2).closed
    opened = failed(CLOSED, 3)
    assert (state_of(opened, NOW), state_of(opened, NOW + 3.9), state_of(opened, NOW + 4.0)) == (
        "open",
        "open",
        "ripe",
    )
    assert (opened.since, opened.failed, opened.why) == (NOW, NOW, "provider_down: 503")


def test_an_answer_between_failures_begins_the_row_anew():
    answered = record(failed(CLOSED, 2), "r", "answered", "", NOW, SETTINGS)
    assert answered == CLOSED
    assert failed(answered, 2).closed


def test_while_it_is_open_nobody_asks_and_when_it_is_ripe_one_tries():
    opened = failed(CLOSED, 3)
    assert admit(opened, "a", NOW + 60, NOW, SETTINGS) == (False, opened)
    may, trying = admit(opened, "a", NOW + 60, NOW + 4, SETTINGS)
    assert may
    assert admit(trying, "b", NOW + 60, NOW + 4, SETTINGS) == (False, trying)
    again, renewed = admit(trying, "a", NOW + 60, NOW + 5, SETTINGS)
    assert again, "another worker got the same request"
    assert renewed.try_until > trying.try_until


@pytest.mark.parametrize(("left_s", "held_s"), [(7.0, 7.0 + GRACE_S), (3600.0, HANGS * 20.0)])
def test_whoever_tries_and_vanishes_leaves_it_to_the_next(left_s, held_s):
    opened, now = ripe()
    _, trying = admit(opened, "a", now + left_s, now, SETTINGS)
    assert not admit(trying, "b", now + 9000, now + held_s - 0.1, SETTINGS)[0]
    assert admit(trying, "b", now + 9000, now + held_s, SETTINGS)[0]


def test_a_try_that_says_nothing_leaves_it_to_the_next_at_once():
    opened, now = ripe()
    _, trying = admit(opened, "a", now + 60, now, SETTINGS)
    silent = record(trying, "a", "silent", "", now, SETTINGS)
    assert state_of(silent, now) == "ripe"


def test_a_try_that_fails_opens_it_for_twice_as_long_up_to_the_bound():
    waits = [breaker.until - breaker.failed for breaker, _ in map(ripe, (1, 2, 3, 4))]
    assert waits == [4.0, 8.0, 10.0, 10.0]


def test_a_try_that_is_answered_closes_it():
    opened, now = ripe(3)
    _, trying = admit(opened, "a", now + 60, now, SETTINGS)
    assert record(trying, "a", "answered", "", now, SETTINGS) == CLOSED


def test_those_that_were_under_way_when_it_opened_do_not_keep_it_open_longer():
    opened = failed(CLOSED, 3)
    assert failed(opened, 5, now=NOW + 2).until == opened.until


@pytest.mark.parametrize(
    ("result", "ran_s", "said"),
    [
        (Success(), 1.0, "answered"),
        (Failure(cause=Cause.PROVIDER_DOWN, provider="p"), 1.0, "down"),
        (Failure(cause=Cause.QUOTA, provider="p"), 1.0, "down"),
        (Failure(cause=Cause.AUTH, provider="p"), 1.0, "down"),
        (Failure(cause=Cause.PROMPT_REFUSED, provider="p"), 1.0, "answered"),
        (Failure(cause=Cause.NO_HIT, provider="p"), 1.0, "answered"),
        (Failure(cause=Cause.BAD_ANSWER, provider="p"), 1.0, "answered"),
        (Failure(cause=Cause.VERDICT_UNREADABLE, provider="p"), 1.0, "answered"),
        (Failure(cause=Cause.PROVIDER_DOWN), 1.0, "silent"),
        (Failure(cause=Cause.BAD_PARAMS), 1.0, "silent"),  # the provider was never asked
        (Failure(cause=Cause.BLOB_MISSING), 1.0, "silent"),
        (Failure(cause=Cause.PROVIDER_DOWN, provider=STORE), 1.0, "silent"),  # nowhere to put the picture
        (Failure(cause=Cause.INTERNAL), 1.0, "silent"),
        (Failure(cause=Cause.TIMEOUT, provider="p"), 20.0, "down"),
        (Failure(cause=Cause.TIMEOUT, provider="p"), 19.9, "silent"),  # it came to a worker too late
        (Failure(cause=Cause.TIMEOUT), 60.0, "silent"),  # decoders were busy, or the job was slow by itself
        (Failure(cause=Cause.HOST_DOWN), 60.0, "answered"),  # with a host that did not
    ],
)
def test_what_an_end_says_of_the_provider(result, ran_s, said):
    assert verdict(result, ran_s, hang_s=20.0) == said


EVENTS = st.lists(
    st.tuples(st.sampled_from(["take", "answered", "down", "silent"]), st.floats(0, 30)), max_size=80
)


@given(EVENTS)
def test_any_history(events):
    breaker, now, row = CLOSED, NOW, 0
    running: list[str] = []
    tries: dict[str, float] = {}  # who may be trying, and until when
    for number, (event, passed) in enumerate(events):
        now += passed
        name = f"r{number}"
        if event == "take":
            where = state_of(breaker, now)
            may, breaker = admit(breaker, name, now + 20, now, SETTINGS)
            assert may == (where in ("closed", "ripe"))
            if where == "ripe":
                assert not [until for until in tries.values() if now < until], "two tried at once"
                tries = {name: now + 20 + GRACE_S}
            running += [name] * may
        elif running:
            name = running.pop(0)
            row = {"answered": 0, "down": row + 1, "silent": row}[event]
            after = record(breaker, name, event, "why", now, SETTINGS)
            tries.pop(name, None)
            if event == "answered":
                assert after == CLOSED
                tries = {}
            elif breaker.closed and not after.closed:
                assert row >= SETTINGS.failures
            elif event == "silent":
                assert (after.openings, after.until) == (breaker.openings, breaker.until)
            assert after.until <= now + SETTINGS.max_open_s or after.until == breaker.until
            breaker = after
        assert Breaker.model_validate_json(breaker.model_dump_json()) == breaker
