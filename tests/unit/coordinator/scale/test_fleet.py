"""The fleet keeps the wanted number of workers, replaces dead ones, and lets drained ones finish."""

from __future__ import annotations

import threading
import time
from functools import partial
from itertools import pairwise

import pytest
from waiting import wait_until

from coordinator.config.pools import PoolSettings
from coordinator.config.settings import ServiceConfig, check
from coordinator.host.signals import StopSignals
from coordinator.run.services import Services
from coordinator.scale.fleet import Fleet
from coordinator.scale.nodes.needs import GRACE_S, drain_s
from workers.errors import Cause, InfrastructureFault
from workers.queues import QUEUES

WAIT_S = 5.0
BY_DEFAULT = partial(drain_s, ServiceConfig())


class FakeWorker:
    """Ready when `up` is set, and drained when `idle` is. `ended`: what ended it first."""

    def __init__(self, name: str, up: bool, idle: bool):
        self.name, self.alive, self.drained_s, self.killed = name, False, None, False
        self.ended = ""
        self.up, self.idle = threading.Event(), threading.Event()
        self.fault: Exception | None = None
        if up:
            self.up.set()
        if idle:
            self.idle.set()

    def start(self) -> None:
        self.alive = True

    def wait_ready(self, timeout_s: float) -> None:
        self.up.wait(WAIT_S)
        if self.fault is not None:
            raise self.fault

    def drain(self, timeout_s: float) -> bool:
        self.drained_s = timeout_s
        done = self.idle.wait(min(timeout_s, WAIT_S))
        self._end("idle" if done else "late")
        return done

    def kill(self) -> None:
        self.killed = True
        self._end("killed")
        self.idle.set()

    def _end(self, how: str) -> None:
        self.ended = self.ended or how
        self.alive = False


class WorkerFactory:
    """Makes workers, and keeps them in the order they were made."""

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []
        self.up = self.idle = True

    def __call__(self, pool: PoolSettings, name: str) -> FakeWorker:
        self.workers.append(FakeWorker(name, self.up, self.idle))
        return self.workers[-1]


@pytest.fixture
def factory() -> WorkerFactory:
    return WorkerFactory()


def fleet_of(factory: WorkerFactory, low: int = 1, high: int = 4) -> Fleet:
    return Fleet([PoolSettings(queues=("code",), low=low, high=high)], factory, 1.0, BY_DEFAULT)


def ready(fleet: Fleet, count: int) -> None:
    wait_until(lambda: (fleet.reconcile(), fleet.states()["code"].ready == count)[1])


def test_start_returns_with_the_low_of_every_pool_ready(factory):
    pools = [PoolSettings(queues=("code",), low=2, high=3), PoolSettings(queues=("search",), low=0)]
    fleet = Fleet(pools, factory, 1.0, BY_DEFAULT)
    fleet.start()
    states = fleet.states()
    assert (states["code"].ready, states["search"].ready) == (2, 0)
    assert len({worker.name for worker in factory.workers}) == 2


def test_start_raises_the_error_of_a_worker_that_does_not_start(factory):
    fleet = fleet_of(factory)
    factory.up = False
    fleet.begin()
    factory.workers[0].fault = InfrastructureFault(Cause.WORKER_LOST, "the log ends: no weights")
    factory.workers[0].up.set()
    with pytest.raises(InfrastructureFault, match="no weights"):
        fleet.start()


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (3, 3), (9, 4)])
def test_a_pool_stays_within_its_bounds(factory, asked, given):
    fleet = fleet_of(factory)
    fleet.resize("code", asked)
    ready(fleet, given)
    assert fleet.states()["code"].wanted == given


def test_a_worker_that_starts_slowly_blocks_nothing(factory):
    fleet = fleet_of(factory)
    fleet.start()
    factory.up = False
    fleet.resize("code", 3)
    fleet.reconcile()
    state = fleet.states()["code"]
    assert (state.ready, state.starting) == (1, 2)
    for worker in factory.workers:
        worker.up.set()
    ready(fleet, 3)


def test_shrinking_drains_the_newest_for_a_whole_job(factory):
    fleet = fleet_of(factory, low=0)
    factory.idle = False
    fleet.resize("code", 2)
    ready(fleet, 2)
    fleet.resize("code", 1)
    fleet.reconcile()
    first, second = factory.workers
    wait_until(lambda: second.drained_s is not None)
    assert second.drained_s == QUEUES["code"].limit_s + GRACE_S
    assert (fleet.states()["code"].ready, fleet.states()["code"].draining) == (1, 1)
    second.idle.set()
    wait_until(lambda: (fleet.reconcile(), fleet.states()["code"].draining == 0)[1])
    assert first.drained_s is None
    assert first.alive


def test_draining_lasts_as_long_as_the_configured_limit_of_a_judge(factory):
    config = ServiceConfig.model_validate({"judges": {"text": {"timeout_s": 600}}})
    pool = PoolSettings(queues=("judge_text", "search"), low=1, high=2)
    fleet = Fleet([pool], factory, 1.0, partial(drain_s, config))
    fleet.resize(pool.name, 2)
    wait_until(lambda: (fleet.reconcile(), fleet.states()[pool.name].ready == 2)[1])
    factory.workers[1].idle.clear()
    fleet.resize(pool.name, 1)
    fleet.reconcile()
    wait_until(lambda: factory.workers[1].drained_s is not None)
    assert factory.workers[1].drained_s == 600 + GRACE_S
    factory.workers[1].idle.set()


def test_a_fleet_uses_the_configuration_of_its_run(tmp_path):
    train = {"model": "owner/m", "steps": 1, "batch_size": 2, "n": 2}
    raw = {"train": train, "data": {"train": ["t.parquet"]}, "judges": {"text": {"timeout_s": 600}},
           "workers": {"pools": [{"queues": ["judge_text"]}, {"queues": ["code"]}]}}  # fmt: skip
    services = Services(check(raw, "run.yaml"), tmp_path, StopSignals(), print)
    given = {name: pool.drain_s for name, pool in services.fleet._pools.items()}
    assert given == {"judge_text": 600 + GRACE_S, "code": QUEUES["code"].limit_s + GRACE_S}


def test_growing_while_a_worker_drains_starts_a_new_one(factory):
    fleet = fleet_of(factory, low=0)
    factory.idle = False
    fleet.resize("code", 1)
    ready(fleet, 1)
    fleet.resize("code", 0)
    fleet.reconcile()
    fleet.resize("code", 1)
    ready(fleet, 1)
    assert [worker.drained_s is None for worker in factory.workers] == [False, True]
    assert fleet.restarts == 0


def test_a_dead_worker_is_replaced_by_one_of_another_name_and_counted(factory, monkeypatch):
    monkeypatch.setattr("coordinator.scale.fleet.FIRST_PAUSE_S", 0.0)
    fleet = fleet_of(factory)
    fleet.start()
    factory.workers[0].alive = False
    wait_until(lambda: (fleet.reconcile(), fleet.restarts == 1)[1])
    ready(fleet, 1)
    assert fleet.restarts == 1
    assert factory.workers[0].name != factory.workers[1].name
    wait_until(lambda: factory.workers[0].killed)


def test_a_dead_worker_above_the_wanted_number_is_not_replaced(factory):
    fleet = fleet_of(factory, low=0)
    fleet.resize("code", 1)
    ready(fleet, 1)
    factory.workers[0].alive = False
    fleet.resize("code", 0)
    fleet.reconcile()
    fleet.reconcile()
    assert (len(factory.workers), fleet.restarts) == (1, 0)


def test_the_pause_before_a_replacement_grows_with_each_death(factory, monkeypatch):
    fleet = fleet_of(factory)
    fleet.start()
    began = time.monotonic()
    replaced = []
    for second in range(100):
        monkeypatch.setattr("coordinator.scale.fleet.time.monotonic", lambda at=began + second: at)
        before = len(factory.workers)
        fleet.reconcile()
        replaced += [second] * (len(factory.workers) - before)
        factory.workers[-1].alive = False
        monkeypatch.undo()
        wait_until(lambda: fleet.states()["code"].ready == 0)
    gaps = [later - earlier for earlier, later in pairwise(replaced)]
    assert gaps == sorted(gaps)
    assert 4 <= len(replaced) <= 8


def test_stopping_drains_at_once_and_kills_at_the_deadline(factory):
    fleet = fleet_of(factory, low=2)
    factory.idle = False
    fleet.start()
    fleet.resize("code", 3)
    ready(fleet, 3)
    fleet.resize("code", 2)
    fleet.reconcile()  # one is draining already, with a long deadline
    factory.workers[0].idle.set()
    fleet.stop(0.2)
    wait_until(lambda: not any(worker.alive for worker in factory.workers))
    assert factory.workers[2].ended == "killed", "before its own deadline"
    fleet.reconcile()
    assert len(factory.workers) == 3
