"""The size of a pool: the properties of the rule, and the course of a backlog in a simulated pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.config.pools import PoolSettings, ScalerSettings
from coordinator.scale.scaling import Load, Sizer, size
from workers.broker.depths import QueueDepth

SCALER = ScalerSettings(every_s=1.0, drain_s=30.0, utilization=0.8, idle_s=60.0)
CODE = PoolSettings(queues=("code",), low=0, high=10)
PAIR = PoolSettings(queues=("diffusion", "edit"), low=0, high=10)

loads = st.builds(
    Load,
    backlog=st.integers(0, 5000),
    running=st.integers(0, 200),
    rate=st.floats(0, 200),
    service_s=st.none() | st.floats(0.001, 600),
    active=st.booleans(),
    down=st.booleans(),
)
pools = st.builds(
    lambda concurrency, low, more: PoolSettings(
        queues=("diffusion", "edit"), concurrency=concurrency, low=low, high=max(1, low + more)
    ),
    st.integers(1, 64),
    st.integers(0, 8),
    st.integers(0, 64),
)


def depth(waiting: int = 0, running: int = 0, finished: int = 0, service_s: float = 1.0) -> QueueDepth:
    """`finished` jobs of `service_s` seconds each."""
    return QueueDepth(waiting, running, 0.0, finished, finished, finished * service_s)


# The rule.


@given(st.tuples(loads, loads), pools)
def test_the_size_lies_within_the_bounds(pair, pool):
    assert pool.low <= size(pair, pool, SCALER) <= pool.high


@given(loads, loads, pools, st.integers(0, 1000))
def test_more_backlog_never_means_fewer_workers(one, other, pool, more):
    fuller = replace(one, backlog=one.backlog + more)
    assert size([fuller, other], pool, SCALER) >= size([one, other], pool, SCALER)


@given(loads, pools)
def test_a_pool_with_anything_to_do_has_a_worker(load, pool):
    assert size([load], pool, SCALER) >= int(load.busy)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(), 0),
        (Load(backlog=1), 1),
        (Load(running=1), 1),
        (Load(active=True), 1),
        (Load(backlog=500), 1),  # until the first has been measured
        (Load(backlog=30, service_s=1.0), 1),  # gone in drain_s by one
        (Load(backlog=33, service_s=1.0), 2),
        (Load(rate=0.8, service_s=1.0), 1),  # as busy as it may be
        (Load(rate=0.9, service_s=1.0), 2),
        (Load(rate=1.6, backlog=60, service_s=1.0), 4),
        (Load(running=4, service_s=0.1), 4),
        (Load(backlog=10_000, service_s=60.0), 10),
        (Load(rate=0.001, service_s=1.0), 0),
        (Load(rate=9.0, backlog=500, service_s=1.0, down=True), 1),  # which tries the provider
        (Load(rate=9.0, service_s=1.0, down=True), 0),
    ],
)
def test_the_size_for_a_load(load, expected):
    assert size([load], CODE, SCALER) == expected


def test_queues_of_one_pool_add_up_each_with_its_own_service_time():
    loads = [Load(backlog=30, service_s=1.0), Load(backlog=6, service_s=10.0)]
    assert size(loads, PAIR, SCALER) == 3


def test_one_worker_runs_as_many_jobs_as_its_pool_says():
    pool = PoolSettings(queues=("search",), concurrency=16, high=10)
    assert size([Load(backlog=480, service_s=2.0)], pool, SCALER) == 2
    assert size([Load(running=17)], pool, SCALER) == 2


# The memory.


def test_the_first_thing_that_waits_gets_a_worker_at_once():
    sizer = Sizer(CODE, SCALER)
    assert sizer.decide(0.0, {"code": depth()}, 0).wanted == 0
    assert sizer.decide(1.0, {"code": depth(waiting=1)}, 0).wanted == 1


def test_fewer_only_after_a_while_of_being_enough_and_one_at_a_time():
    sizer = Sizer(CODE, SCALER)
    wanted, changes = 3, []
    for second in range(300):
        now = sizer.decide(float(second), {"code": depth()}, wanted).wanted
        if now != wanted:
            changes.append((second, now))
        wanted = now
    assert changes == [(60, 2), (120, 1), (180, 0)]


def test_a_moment_of_need_restarts_the_wait():
    sizer = Sizer(CODE, SCALER)
    for second in range(50):
        assert sizer.decide(float(second), {"code": depth()}, 1).wanted == 1
    sizer.decide(50.0, {"code": depth(waiting=1)}, 1)
    for second in range(51, 111):
        assert sizer.decide(float(second), {"code": depth()}, 1).wanted == 1


def test_a_job_between_two_polls_keeps_the_worker():
    sizer = Sizer(CODE, SCALER)
    for second in range(0, 600, 10):
        decision = sizer.decide(float(second), {"code": depth(finished=second // 40, service_s=0.1)}, 1)
        assert decision.wanted == 1


def test_service_time_follows_what_is_measured():
    sizer = Sizer(CODE, SCALER)
    assert sizer.decide(0.0, {"code": depth()}, 0).service_s is None
    assert sizer.decide(1.0, {"code": depth(finished=10, service_s=2.0)}, 0).service_s == pytest.approx(2.0)
    slower = QueueDepth(0, 0, 0.0, 30, 30, 10 * 2.0 + 20 * 4.0)
    assert 3.0 < (sizer.decide(2.0, {"code": slower}, 0).service_s or 0.0) < 4.0


def test_cancelled_requests_do_not_count_for_the_service_time():
    sizer = Sizer(CODE, SCALER)
    cancelled = QueueDepth(0, 0, 0.0, finished=110, ran=10, service_s=20.0)
    sizer.decide(0.0, {"code": depth()}, 0)
    assert sizer.decide(1.0, {"code": cancelled}, 0).service_s == pytest.approx(2.0)


def test_the_rate_counts_arrivals_not_the_backlog():
    sizer = Sizer(CODE, SCALER)
    for second in range(120):
        seen = depth(waiting=3 * second, running=2, finished=second)
        decision = sizer.decide(float(second), {"code": seen}, 1)
    assert decision.rate == pytest.approx(4.0, rel=0.01)


def test_a_redis_that_lost_its_totals_means_no_arrivals():
    sizer = Sizer(CODE, SCALER)
    sizer.decide(0.0, {"code": depth(finished=1000)}, 1)
    decision = sizer.decide(1.0, {"code": depth()}, 1)
    assert (decision.rate, decision.service_s) == (0.0, pytest.approx(1.0))


def test_a_backlog_grows_the_pool_only_once_its_provider_is_back():
    sizer, wanted = Sizer(CODE, SCALER), 1
    sizer.decide(0.0, {"code": depth(finished=20)}, wanted)
    for second in range(1, 100):
        seen = {"code": depth(waiting=4 * second, finished=20)}
        decision = sizer.decide(float(second), seen, wanted, down={"code", "search"})
        wanted = decision.wanted
        assert (wanted, decision.down) == (1, ("code",))
    assert sizer.decide(100.0, seen, wanted).wanted == CODE.high


# A simulated pool: jobs of equal length, workers that take a while to start, a look each second.


class Pool:
    """`arrivals(second)` jobs come at the start of each second; a new worker takes `start_s` to be ready."""

    def __init__(self, pool: PoolSettings, service_s: float, start_s: int):
        self.pool, self.service_s, self.start_s = pool, service_s, start_s
        self.sizer = Sizer(pool, SCALER)
        self.ready_at: list[int] = []
        self.ends: list[float] = []
        self.waiting = self.finished = 0
        self.sizes: list[int] = []
        self.left: list[int] = []  # jobs that wait or run, at each look

    def run(self, seconds: int, arrivals: Callable[[int], int]) -> None:
        for second in range(len(self.sizes), len(self.sizes) + seconds):
            self.waiting += arrivals(second)
            for part in range(10):
                self._work(second + part / 10, sum(at <= second for at in self.ready_at))
            seen = depth(self.waiting, len(self.ends), self.finished, self.service_s)
            wanted = self.sizer.decide(float(second), {"code": seen}, len(self.ready_at)).wanted
            missing = wanted - len(self.ready_at)
            self.ready_at = [*self.ready_at[:wanted], *[second + self.start_s] * missing]
            self.sizes.append(wanted)
            self.left.append(self.waiting + len(self.ends))

    def _work(self, now: float, ready: int) -> None:
        going_on = [end for end in self.ends if end > now]
        self.finished += len(self.ends) - len(going_on)
        taken = min(self.waiting, max(0, ready * self.pool.concurrency - len(going_on)))
        self.waiting -= taken
        self.ends = [*going_on, *[now + self.service_s] * taken]


@given(
    burst=st.integers(1, 300),
    service_s=st.sampled_from([0.1, 0.5, 2.0, 7.0]),
    start_s=st.integers(0, 20),
    high=st.integers(1, 12),
)
def test_a_burst_is_worked_off_and_the_pool_goes_to_zero(burst, service_s, start_s, high):
    simulated = Pool(PoolSettings(queues=("code",), low=0, high=high), service_s, start_s)
    enough_s = int(burst * service_s + start_s + 60 * (high + 3) + 60)
    simulated.run(enough_s, lambda second: burst if second == 0 else 0)
    assert simulated.left[-1] == 0
    assert simulated.sizes[-1] == 0
    for before, after, left in zip(simulated.sizes, simulated.sizes[1:], simulated.left[1:], strict=False):
        assert after >= 1 or not left, "to zero with work left"
        assert after >= before - 1, "more than one at a time"


def test_steady_load_reaches_a_size_without_a_backlog():
    simulated = Pool(CODE, service_s=2.0, start_s=5)
    simulated.run(600, lambda second: 3)
    assert max(simulated.left[-300:]) <= 3 * 2 * 3
    assert set(simulated.sizes[-300:]) == {8}  # 3 a second, 2 s each, busy 80% of the time


def test_new_work_starts_a_worker_again():
    simulated = Pool(CODE, service_s=0.5, start_s=3)
    simulated.run(400, lambda second: 40 if second == 0 else 0)
    assert simulated.sizes[-1] == 0
    simulated.run(30, lambda second: int(second == 400))
    assert simulated.sizes[-1] == 1
    assert simulated.left[-1] == 0
