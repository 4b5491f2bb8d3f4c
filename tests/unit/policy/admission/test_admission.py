"""How many groups are under way: grown when rollouts are missing, shrunk when they grow old, bounded."""

from __future__ import annotations

import heapq
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.admission.window import InFlight, Window
from policy.inflight import FRESH_S, PublishedCounts

NOTHING: frozenset[str] = frozenset()


def window(**changed) -> Window:
    options = {"batch": 8, "max_staleness": 4, "slots": 64, "first": 16, "steps": None}
    return Window(**{**options, **changed})


def starving(**changed) -> InFlight:
    """The trainer waits, the generator has room, the queues have workers to spare."""
    return InFlight(**{"ready": 0, "open": 16, "writing": 3, "pressed": NOTHING, **changed})


def test_as_many_groups_are_kept_open_as_the_window_says():
    assert window().begin(1, InFlight(ready=0, open=0), stale=0) == 16
    assert window().begin(2, InFlight(ready=3, open=5), stale=0) == 11


def test_no_more_are_under_way_than_could_be_trained_on_in_time():
    assert window(first=32).begin(2, InFlight(ready=20, open=5), stale=0) == 7
    assert window(max_staleness=2).begin(2, InFlight(ready=7, open=9), stale=0) == 0


def test_no_more_than_a_batch_lies_ready_beside_those_that_are_open():
    assert window().begin(2, InFlight(ready=12, open=5), stale=0) == 7
    assert window().wait(2, InFlight(ready=7, open=16)) == 0


def test_at_least_a_batch_is_under_way():
    small = window(first=8)
    assert small.begin(1, InFlight(ready=0, open=0), stale=0) == 8


def test_rollouts_that_are_missing_are_added_a_part_of_a_batch_at_a_time():
    grown = window()
    assert grown.wait(1, starving()) == 1
    assert grown.wait(1, starving(open=17)) == 1
    assert window(batch=32, first=64).wait(1, starving(open=64)) == 4


@pytest.mark.parametrize(
    "flight",
    [
        starving(writing=32),
        starving(pressed=frozenset({"diffusion"})),
        starving(ready=8, open=16),
        starving(writing=None),
        starving(pressed=None),
    ],
    ids=["the generator is busy", "a queue is full", "enough is ready", "nobody told", "Redis is away"],
)
def test_more_rollouts_are_not_added_where_they_would_only_wait(flight):
    assert window().wait(1, flight) == 0


def test_groups_that_came_too_late_shrink_the_window_until_those_from_before_have_passed():
    late = window()
    assert late.begin(5, InFlight(ready=0, open=10), stale=1) == 4
    assert late.size == 14
    late.wait(8, starving(open=14))
    assert late.size == 14
    late.wait(9, starving(open=14))
    assert late.size == 15


def test_whole_batches_that_lie_ready_shrink_the_window():
    full = window()
    assert full.begin(5, InFlight(ready=16, open=15), stale=0) == 0
    assert full.size == 15


def test_the_last_steps_ask_for_no_more_than_they_need():
    last = window(steps=10)
    assert last.begin(9, InFlight(ready=0, open=9), stale=0) == 7
    assert last.begin(10, InFlight(ready=2, open=6), stale=0) == 0
    assert last.begin(10, InFlight(ready=2, open=5), stale=0) == 1


@given(
    st.integers(1, 64),
    st.integers(1, 8),
    st.lists(
        st.tuples(
            st.integers(0, 99),
            st.integers(0, 99),
            st.none() | st.integers(0, 99),
            st.none() | st.just(NOTHING) | st.just(frozenset({"code"})),
            st.integers(0, 9),
            st.booleans(),
        )
    ),
)
def test_the_window_stays_between_one_batch_and_the_staleness_bound(batch, staleness, looks):
    bounded = Window(batch=batch, max_staleness=staleness, slots=64, first=2 * batch, steps=None)
    for ready, open_, writers, pressed, stale, waiting in looks:
        flight = InFlight(ready, open_, writers, pressed)
        asked = bounded.wait(1, flight) if waiting else bounded.begin(1, flight, stale)
        assert batch <= bounded.size <= batch * staleness
        assert 0 <= asked <= max(0, batch * staleness - ready - open_)
        assert asked <= max(0, bounded.size - open_, batch - open_)


@given(st.lists(st.integers(0, 12), min_size=1))
def test_fewer_ready_groups_never_ask_for_fewer(readies):
    asked = [window().begin(1, InFlight(ready, 4), stale=0) for ready in sorted(readies)]
    assert asked == sorted(asked, reverse=True)


class Run:
    """In whole seconds: a group writes for `write_s` and waits for `wait_s`, a step trains for `train_s`."""

    def __init__(self, admission: Window, write_s: int, wait_s: int, train_s: int):
        self.window, self.write_s, self.wait_s, self.train_s = admission, write_s, wait_s, train_s
        self.ends: list[int] = []  # of groups that have not ended, a heap
        self.ready = self.idle = self.now = 0
        self.writers: list[int] = []

    def submit(self, groups: int) -> None:
        for _ in range(groups):
            heapq.heappush(self.ends, self.now + self.write_s + self.wait_s)
            self.writers.append(self.now + self.write_s)

    def flight(self) -> InFlight:
        while self.ends and self.ends[0] <= self.now:
            heapq.heappop(self.ends)
            self.ready += 1
        self.writers = [end for end in self.writers if end > self.now]
        return InFlight(self.ready, len(self.ends), 8 * len(self.writers), NOTHING)

    def step(self, number: int) -> None:
        self.submit(self.window.begin(number, self.flight(), stale=0))
        while self.flight().ready < 8:
            self.submit(self.window.wait(number, self.flight()))
            self.now += 1
            self.idle += 1
        self.ready -= 8
        self.now += self.train_s


def test_in_a_run_whose_rollouts_wait_for_judges_the_trainer_stops_waiting():
    adapting = Run(window(), write_s=2, wait_s=20, train_s=10)
    for number in range(1, 7):
        adapting.step(number)
    adapting.idle = 0
    for number in itertools.islice(itertools.count(7), 10):
        adapting.step(number)
    assert adapting.idle <= 10  # of 100 s of training

    fixed = Run(window(max_staleness=2), write_s=2, wait_s=20, train_s=10)  # may not grow beyond two batches
    for number in range(1, 7):
        fixed.step(number)
    fixed.idle = 0
    for number in itertools.islice(itertools.count(7), 10):
        fixed.step(number)
    assert fixed.idle > 10


def test_what_a_dead_process_told_is_forgotten():
    told = PublishedCounts()
    assert told.writing({b"a": b"[3, 0]", b"b": b"[4, 7]"}, now=0.0) == 7
    assert told.writing({b"a": b"[2, 1]", b"b": b"[4, 7]"}, now=FRESH_S / 2) == 6
    assert told.writing({b"a": b"[5, 2]", b"b": b"[4, 7]"}, now=FRESH_S) == 5
    assert told.writing({b"a": b"[5, 2]", b"b": b"[4, 7]"}, now=2 * FRESH_S) is None
    assert told.writing({}, now=0.0) is None
