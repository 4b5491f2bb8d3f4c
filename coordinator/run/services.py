"""The services of a run: Redis and the claim on it, Ray, the workers and their scaler, the trainer.

They are started in this order and stopped in reverse. Workers and trainer start at once, since both take
long.

Invariants:
- Everything that was started is stopped, with a deadline for each, on success, failure or a signal.
- A part that does not stop does not keep the others running.
- At the end this process has no descendants.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from coordinator.config.settings import CONFIG_FILE, RAY_ENV, RunConfig
from coordinator.console.terminal import Notify
from coordinator.host import processes
from coordinator.host.ray_cluster import RayCluster
from coordinator.host.redis_server import EmbeddedRedis
from coordinator.host.signals import StopSignals
from coordinator.run.trainer import Trainer
from coordinator.scale.fleet import Fleet
from coordinator.scale.nodes.needs import drain_s
from coordinator.scale.ray_worker import ray_worker
from coordinator.scale.scaler import Scaler
from coordinator.state.claim import Claim, delete
from coordinator.state.resume import StartPoint, cancel
from policy.settings import AGENT_CONFIG, LOOP, agent_loop_config, environment
from policy.train.verl_options import hydra_overrides
from workers.process.log_rotation import rotate

logger = logging.getLogger(__name__)
SCORER = "rewards.scorer:QueueScorer.from_config"
LAST_DEADLINE_S = 10.0
POLL_S = 0.1
WORK = "work"  # working directory of trainer and Ray: a folder without anything to import


class Services:
    """A context manager: on entry all services run and the trainer has started, on exit none is left.

    `notify`: called with a line for each phase. `loop`: dotted name of the class that runs a rollout.
    `start_point`: of a resumed run.
    """

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        signals: StopSignals,
        notify: Notify,
        loop: str = LOOP,
        start_point: StartPoint | None = None,
    ):
        self.config = config
        self._start_point = start_point or StartPoint()
        self._loop = loop
        self._run = run
        self._signals = signals
        self._notify = notify
        self._stack = ExitStack()
        self._before: frozenset[int] = frozenset()
        workers = config.workers
        make = ray_worker(run / CONFIG_FILE, run / "logs")
        self.fleet = Fleet(workers.pools, make, workers.ready_s, partial(drain_s, config))
        self._claim: Claim | None = None
        self._scaler: Scaler | None = None
        self._server: EmbeddedRedis | None = None
        self.trainer: Trainer | None = None

    def __enter__(self) -> Services:
        processes.adopt_orphans()
        self._before = frozenset(process.pid for process in processes.descendants())
        try:
            self._start()
        except BaseException:  # __exit__ is not called when __enter__ raises
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def training(self) -> bool:
        """Whether the trainer is running. Raises `TrainerDied` when it ended with an error."""
        if self.trainer is None:
            return False
        if self.trainer.running:
            return True
        self.trainer.check()
        return False

    def tick(self) -> None:
        """Renew the claim, rotate the log, restart what died. Call it about every second."""
        if self._claim is not None:
            self._claim.renew()
        if self.trainer is not None:
            rotate(self.trainer.log)
        if self._server is not None:
            self._server.ensure_running()
        self.fleet.reconcile()

    def depths(self) -> Mapping[str, int]:
        """Requests waiting or running, by queue; empty while Redis does not answer."""
        seen = self._scaler.depths if self._scaler is not None else {}
        return {name: depth.waiting + depth.running for name, depth in seen.items()}

    def _start(self) -> None:
        if not self.config.external_redis:
            self._notify("starting Redis")
            self._start_redis()
        self.config.save(self._run)
        claim = self._claim = Claim(self.config, resuming=self._start_point.resumed)
        claim.acquire()
        self._stack.callback(claim.release)
        cancel(self.config.queue, self._start_point.orphans)
        self._notify("starting Ray")
        cluster = RayCluster(self.config.ray, self.config.train, self.config.workers.pools, self._run / WORK)
        self._stack.callback(self._ending("Ray", cluster.stop))
        address = cluster.start()
        self._signals.install()  # Ray has replaced the handlers
        self._notify("starting the trainer and the workers")
        self._stack.callback(self._ending("the workers", self.fleet.stop))
        self.fleet.begin()
        self.trainer = self._make_trainer(address, cluster.next_worker_env(), self._run / "logs")
        self._stack.callback(self._ending("the trainer", self.trainer.stop))
        self.trainer.start()
        shown = 0
        while not self.fleet.check() and self.training:
            claim.renew()
            if self._server is not None:
                self._server.ensure_running()
            states = self.fleet.states().values()
            ready, wanted = sum(state.ready for state in states), sum(state.wanted for state in states)
            if ready > shown:
                self._notify(f"starting the trainer and the workers, {ready} of {wanted} ready")
                shown = ready
            time.sleep(POLL_S)
        self._start_scaler()

    def _start_scaler(self) -> None:
        workers = self.config.workers
        scaler = Scaler(self.config.queue.url, workers.pools, workers.scaler, self.fleet, self._run)
        self._scaler = scaler
        self._stack.callback(scaler.stop)
        scaler.start()

    def _start_redis(self) -> None:
        server = self._server = EmbeddedRedis(self._run / "redis")
        self._stack.callback(self._ending("Redis", server.stop))
        server.start()
        queue = self.config.queue.model_copy(update={"redis_url": server.url})
        self.config = self.config.model_copy(update={"queue": queue})
        delete(queue)  # no other run can have a claim on this Redis

    def _make_trainer(self, ray_address: str, worker: Mapping[str, str], logs: Path) -> Trainer:
        train = self.config.train
        agents = agent_loop_config(train, run=self._run, scorer=SCORER, loop=self._loop)
        (self._run / AGENT_CONFIG).write_text(agents + "\n", encoding="utf-8")
        data = self.config.data
        overrides = hydra_overrides(
            train,
            run=self._run,
            data_train=[Path(file) for file in data.train],
            data_test=[Path(file) for file in data.test or data.train[:1]],
            resume_from=self._start_point.step,
        )
        env = {**environment(train, run=self._run), RAY_ENV: ray_address, **worker}
        return Trainer(overrides, env, logs / "trainer.log", self._run / WORK)

    def _ending(self, name: str, stop: Callable[[], None]) -> Callable[[], None]:
        def end() -> None:
            for step in (partial(self._notify, f"stopping {name}"), stop):
                try:
                    step()
                except (
                    Exception,
                    SystemExit,
                ):  # SystemExit: rich's for a broken pipe; the others must be stopped
                    logger.exception("stopping %s failed", name)

        return end

    def _stop(self) -> None:
        self._signals.stopping = True
        try:
            self._stack.close()
        finally:
            processes.end_all(LAST_DEADLINE_S, keep=self._before)
