"""The window: it grows when rollouts are missing, shrinks when groups become stale, and has bounds."""

from __future__ import annotations

import heapq
import itertools
from statistics import fmean

import pytest
from admission_simulation import SimulatedRun
from hypothesis import given
from hypothesis import strategies as st

from policy.admission.feeder import PromptFeeder
from policy.admission.standing import POLLS, Load, StandingQueue
from policy.admission.window import InFlight, Window
from policy.inflight import FRESH_S, PublishedCounts
from workers.broker.depths import QueueDepth
from workers.settings import QueueSettings

NOTHING: dict[str, Load] = {}
FULL = {"diffusion": Load(waiting=5, running=4), "code": Load(0, 0)}


LOADS = st.builds(Load, st.integers(0, 99), st.integers(0, 99))


def window(**changed) -> Window:
    options = {"batch": 8, "max_staleness": 4, "slots": 64, "first": 16, "steps": None}
    return Window(**{**options, **changed})


def starving(**changed) -> InFlight:
    """The trainer waits, the generator has room, the queues have workers to spare."""
    return InFlight(**{"ready": 0, "open": 16, "generating": 3, "loads": NOTHING, **changed})


def test_the_window_size_is_the_number_of_open_groups():
    assert window().start_step(1, InFlight(ready=0, open=0), stale=0) == 16
    assert window().start_step(2, InFlight(ready=3, open=5), stale=0) == 11


def test_no_more_are_in_flight_than_can_be_trained_on_in_time():
    assert window(first=32).start_step(2, InFlight(ready=20, open=5), stale=0) == 7
    assert window(max_staleness=2).start_step(2, InFlight(ready=7, open=9), stale=0) == 0


def test_no_more_than_a_batch_is_ready_besides_the_open_groups():
    assert window().start_step(2, InFlight(ready=12, open=5), stale=0) == 7
    assert window().poll(2, InFlight(ready=7, open=16)) == 0


def test_at_least_a_batch_is_in_flight():
    small = window(first=8)
    assert small.start_step(1, InFlight(ready=0, open=0), stale=0) == 8


def test_the_window_grows_by_a_part_of_a_batch():
    grown = window()
    assert grown.poll(1, starving()) == 1
    assert grown.poll(1, starving(open=17)) == 1
    assert window(batch=32, first=64).poll(1, starving(open=64)) == 4


@pytest.mark.parametrize(
    "flight",
    [
        starving(generating=32),
        starving(loads=FULL),
        starving(ready=8, open=16),
        starving(generating=None),
        starving(loads=None),
    ],
    ids=[
        "the generator is busy",
        "a queue is full",
        "enough is ready",
        "count unknown",
        "Redis does not answer",
    ],
)
def test_the_window_does_not_grow_where_rollouts_would_only_wait(flight):
    assert window().poll(1, flight) == 0


def at_the_knee(loads: dict[str, Load], **changed) -> Window:
    """A window after a step in which a queue was full and then had `loads`."""
    known = window(**changed)
    for _ in range(POLLS):
        known.poll(1, starving(loads=FULL))
    known.start_step(2, InFlight(ready=8, open=16), stale=0)  # ends the step that found the knee
    for _ in range(POLLS):
        known.poll(2, starving(loads=loads))
    return known


def test_a_full_queue_ends_the_growth_of_each_second():
    known = window()
    for _ in range(POLLS - 1):
        known.poll(1, starving(loads=FULL))
    assert known.poll(1, starving()) == 1, "a burst is no knee"
    for _ in range(POLLS):
        known.poll(1, starving(loads=FULL))
    known.poll(1, starving())
    assert known.size == 17


@pytest.mark.parametrize("idle", [{"diffusion": Load(waiting=9, running=0)}, {"code": Load(1, 0)}])
def test_a_queue_without_workers_marks_no_knee(idle):
    known = window()
    for _ in range(2 * POLLS):
        assert known.poll(1, starving(loads=idle)) == 0, "its requests wait"
    assert known.poll(1, starving()) == 1
    assert known.poll(1, starving(open=17)) == 1


@pytest.mark.parametrize(("running", "again"), [(7, False), (8, True)])
def test_the_knee_is_searched_again_when_a_queue_has_twice_the_workers(running, again):
    known = at_the_knee({"diffusion": Load(waiting=0, running=running)})
    known.start_step(3, InFlight(ready=8, open=16), stale=0)
    before = known.size
    known.poll(3, starving(open=before))
    assert known.size == before + again


def test_twice_the_workers_and_a_standing_queue_keep_the_knee():
    known = at_the_knee({"diffusion": Load(waiting=5, running=8)})
    known.start_step(3, InFlight(ready=8, open=16), stale=0)
    before = known.size
    known.poll(3, starving(open=before))
    assert known.size == before


def test_at_the_knee_the_window_shrinks_where_a_queue_never_emptied():
    before = at_the_knee(NOTHING).size
    full = at_the_knee({"judge_image": Load(waiting=5, running=16)})
    full.start_step(3, InFlight(ready=8, open=16), stale=0)
    assert full.size == before - 1


def test_at_the_knee_the_window_grows_by_one_part_a_step_where_every_queue_emptied():
    known = at_the_knee({"judge_image": Load(waiting=0, running=16)})
    before = known.size
    known.start_step(3, InFlight(ready=8, open=16), stale=0)
    assert known.size == before + 1
    for _ in range(10):
        known.poll(3, starving())
    assert known.size == before + 1


@pytest.mark.parametrize(
    "load", [Load(4, 16), Load(1, 1), Load(9, 0)], ids=["root of those running", "one slot", "no worker"]
)
def test_at_the_knee_the_window_stays_where_chance_explains_the_queue(load):
    known = at_the_knee({"judge_image": load})
    before = known.size
    known.start_step(3, InFlight(ready=8, open=16), stale=0)
    assert known.size == before


def test_a_queue_of_bursts_is_no_standing_queue():
    polls = StandingQueue()
    for waiting in (30, 12, 0, 25):
        polls.add({"judge_text": Load(waiting, 16)}, starving=True)
    assert (polls.stands, polls.room) == (False, True)
    few = StandingQueue()
    few.add({"judge_text": Load(30, 16)}, starving=True)
    assert not few.stands, "one poll decides nothing"


def test_a_window_at_the_knee_does_not_grow_while_the_trainer_has_enough():
    polls = StandingQueue()
    for starving_now in (True, False, False):
        polls.add({"judge_text": Load(0, 3)}, starving=starving_now)
    assert not polls.room


def test_stale_groups_shrink_the_window_until_the_groups_before_have_passed():
    late = window()
    assert late.start_step(5, InFlight(ready=0, open=10), stale=1) == 4
    assert late.size == 14
    late.poll(8, starving(open=14))
    assert late.size == 14
    late.poll(9, starving(open=14))
    assert late.size == 15


def test_ready_batches_shrink_the_window():
    full = window()
    assert full.start_step(5, InFlight(ready=16, open=15), stale=0) == 0
    assert full.size == 15


def test_the_last_steps_submit_no_more_than_they_need():
    last = window(steps=10)
    assert last.start_step(9, InFlight(ready=0, open=9), stale=0) == 7
    assert last.start_step(10, InFlight(ready=2, open=6), stale=0) == 0
    assert last.start_step(10, InFlight(ready=2, open=5), stale=0) == 1


@given(
    st.integers(1, 64),
    st.integers(1, 8),
    st.lists(
        st.tuples(
            st.integers(0, 99),
            st.integers(0, 99),
            st.none() | st.integers(0, 99),
            st.none() | st.dictionaries(st.sampled_from(["code", "edit"]), LOADS),
            st.integers(0, 9),
            st.booleans(),
        )
    ),
)
def test_the_window_stays_between_one_batch_and_the_staleness_bound(batch, staleness, polls):
    bounded = Window(batch=batch, max_staleness=staleness, slots=64, first=2 * batch, steps=None)
    for ready, open_, generating, loads, stale, waiting in polls:
        in_flight = InFlight(ready, open_, generating, loads)
        asked = bounded.poll(1, in_flight) if waiting else bounded.start_step(1, in_flight, stale)
        assert batch <= bounded.size <= batch * staleness
        assert 0 <= asked <= max(0, batch * staleness - ready - open_)
        assert asked <= max(0, bounded.size - open_, batch - open_)


@given(st.lists(st.integers(0, 12), min_size=1))
def test_fewer_ready_groups_never_submit_fewer(readies):
    asked = [window().start_step(1, InFlight(ready, 4), stale=0) for ready in sorted(readies)]
    assert asked == sorted(asked, reverse=True)


class Run:
    """In whole seconds: a group writes for `write_s` and waits for `wait_s`, a step trains for `train_s`."""

    def __init__(self, admission: Window, write_s: int, wait_s: int, train_s: int):
        self.window, self.write_s, self.wait_s, self.train_s = admission, write_s, wait_s, train_s
        self.ends: list[int] = []  # of groups that have not ended, a heap
        self.ready = self.idle = self.now = 0
        self.generating: list[int] = []

    def submit(self, groups: int) -> None:
        for _ in range(groups):
            heapq.heappush(self.ends, self.now + self.write_s + self.wait_s)
            self.generating.append(self.now + self.write_s)

    def flight(self) -> InFlight:
        while self.ends and self.ends[0] <= self.now:
            heapq.heappop(self.ends)
            self.ready += 1
        self.generating = [end for end in self.generating if end > self.now]
        return InFlight(self.ready, len(self.ends), 8 * len(self.generating), NOTHING)

    def step(self, number: int) -> None:
        self.submit(self.window.start_step(number, self.flight(), stale=0))
        while self.flight().ready < 8:
            self.submit(self.window.poll(number, self.flight()))
            self.now += 1
            self.idle += 1
        self.ready -= 8
        self.now += self.train_s


def test_with_rollouts_that_wait_for_judges_the_trainer_stops_waiting():
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


@pytest.mark.parametrize(("slots", "judge_s"), [(16, 3.0), (4, 0.75)])
def test_the_window_finds_the_knee_of_a_judge_without_free_slots(slots, judge_s):
    """A step needs the judge for 6 s. More groups in flight than its latency needs would only wait."""
    options = {"batch": 4, "n": 8, "slots": slots, "judge_s": judge_s, "train_s": 1.0}
    run = SimulatedRun(window(batch=4, max_staleness=6, slots=256, first=4), **options)
    run.run(50)
    assert fmean(run.step_s[10:]) < 1.1 * 6.0
    assert fmean(run.staleness[10:]) < 2.5
    run.judge_s /= 3  # now it needs 2 s, and a step more groups in flight
    run.run(30)
    assert fmean(run.step_s[60:]) < 1.3 * 2.0
    run.judge_s *= 6
    run.run(30)
    assert fmean(run.step_s[90:]) < 1.1 * 12.0
    assert fmean(run.staleness[90:]) < 3.0


class NoPause:
    on = False


def test_requests_that_training_overtakes_are_no_backlog():
    depth = QueueDepth(waiting=70, running=2, oldest_s=0.0, by_level=(1, 2, 67))

    class Watcher:
        def poll(self):
            return 3, {"diffusion": depth}

    class Seen(Window):
        def poll(self, step, in_flight):
            self.seen = in_flight.loads
            return 0

    seen = Seen(batch=8, max_staleness=4, slots=64, first=16, steps=None)
    feeder = PromptFeeder(lambda prompts: None, seen, NoPause(), QueueSettings())
    feeder.watcher = Watcher()
    feeder.poll(1, InFlight(0, 16))
    assert seen.seen == {"diffusion": Load(waiting=3, running=2)}


def test_the_count_of_a_dead_process_expires():
    counts = PublishedCounts()
    assert counts.total({b"a": b"[3, 0]", b"b": b"[4, 7]"}, now=0.0) == 7
    assert counts.total({b"a": b"[2, 1]", b"b": b"[4, 7]"}, now=FRESH_S / 2) == 6
    assert counts.total({b"a": b"[5, 2]", b"b": b"[4, 7]"}, now=FRESH_S) == 5
    assert counts.total({b"a": b"[5, 2]", b"b": b"[4, 7]"}, now=2 * FRESH_S) is None
    assert counts.total({}, now=0.0) is None
