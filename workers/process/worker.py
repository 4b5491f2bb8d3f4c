"""One Celery worker process (a parent with its pool), owned by the process that started it.

Invariants:
- It ends with its owner (parent-death signal).
- Ready: it consumes and every pool process is warm, as its heartbeat in Redis says.
- Drained: running jobs have finished and the rest is requeued.
- The folder of its metrics is removed when it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
import redis

from workers.broker.registry import is_ready
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.metrics.folder import MetricsFolder
from workers.metrics.telemetry import FOLDER_ENV
from workers.process.interpreter import PYTHON
from workers.process.parent_death import start_child
from workers.providers.registry import pool_type
from workers.queues import sharing_problem
from workers.redis_client import connect_redis
from workers.settings import CONFIG_ENV, REDIS_ENV, QueueSettings, ToolSettings

POLL_S = 0.05
LOG_TAIL = 2000
# For glibc, which keeps a heap per thread and does not return the memory of an image. With these values
# threads share two heaps, and blocks of an image's size are returned at once.
_THREADS_ENV = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
KILL_WAIT_S = 5.0  # a killed process that takes longer is stuck in the kernel


class WorkerProcess:
    """A worker of `queues` with `concurrency` slots.

    `config`: the resolved configuration of the run. `name` with `node` (default: the host name) must be
    unique among the workers of one Redis. `redis_url`: overrides that of `config`. `app`: module of the
    Celery application. `extra_env`: added to its environment. `pool`: overrides that of the queues.
    `memory_mb`: memory of one process above which it is replaced between two jobs (0: no limit; see
    `workers.celery_app.maintenance`). Raises `ConfigError` for queues that cannot share a process.
    """

    def __init__(
        self,
        queues: Sequence[str],
        config: Path,
        concurrency: int,
        log: Path,
        name: str,
        redis_url: str | None = None,
        app: str = "workers.celery_app.app",
        node: str | None = None,
        extra_env: Mapping[str, str] | None = None,
        pool: Literal["prefork", "threads"] | None = None,
        memory_mb: int = 0,
    ):
        if problem := sharing_problem(queues):
            raise ConfigError(f"queues: {problem}")
        self.queues = tuple(queues)
        self.concurrency = concurrency
        self.name = name
        self.log = log
        self._pool = pool
        self._memory_mb = memory_mb
        self._config = config
        self._redis_url = redis_url
        self._app = app
        self.node = node or socket.gethostname()
        self._extra_env = dict(extra_env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._metrics: MetricsFolder | None = None

    def start(self) -> None:
        """Start the process and return at once."""
        self._remove_metrics()
        self._metrics = MetricsFolder()
        env = {**os.environ, CONFIG_ENV: str(self._config.resolve()), FOLDER_ENV: str(self._metrics.path)}
        env.update(self._extra_env)
        if self._redis_url is not None:
            env[REDIS_ENV] = self._redis_url
        # More threads spin for cores that the trainer uses: a diffusion of 0.1 s took 1.5 s.
        env.setdefault("OMP_NUM_THREADS", "1")
        pool = self._pool or pool_type(self.queues, self._tools())
        if pool == "threads":
            for name, value in _THREADS_ENV.items():
                env.setdefault(name, value)
        command = [*PYTHON, "-m", "workers.process.program", self._app, "worker"]
        command += ["-P", pool, "-c", str(self.concurrency), "-Q", ",".join(self.queues)]
        command += ["-n", f"{self.name}@{self.node}", "-l", "info"]
        command += ["--without-gossip", "--without-mingle"]  # dashboards need only its heartbeat
        if self._memory_mb:
            command += ["--max-memory-per-child", str(self._memory_mb << 10)]
        self._process = start_child(command, log=self.log, env=env)

    def wait_ready(self, timeout_s: float) -> None:
        """Return when the worker is ready. Raises `InfrastructureFault(WORKER_LOST)` if it ends or is not
        ready in time.
        """
        deadline = time.monotonic() + timeout_s
        node = f"{self.name}@{self.node}"
        with connect_redis(self._url()) as client:
            while time.monotonic() < deadline and self.alive:
                try:
                    if is_ready(client, node, self.pid, self.concurrency):
                        return
                except redis.RedisError:
                    pass  # Redis may be starting too
                time.sleep(POLL_S)
        why = f"not ready after {timeout_s:.0f} s" if self.alive else "ended while starting"
        raise InfrastructureFault(
            Cause.WORKER_LOST, f"worker {self.name} {why}; end of {self.log}: {self._log_tail()}"
        )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the Celery parent. Raises `RuntimeError` before `start`."""
        if self._process is None:
            raise RuntimeError(f"worker {self.name} was not started")
        return self._process.pid

    def drain(self, timeout_s: float) -> bool:
        """Warm shutdown: finish running jobs, requeue the rest. Killed after `timeout_s`. Returns whether it
        ended by itself.
        """
        if not self.alive:
            self._remove_metrics()
            return True
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self._remove_metrics()
        return True

    def kill(self) -> None:
        """Kill the worker and its pool. Its jobs are requeued when their leases expire.

        Returns when the processes have ended and their memory is free.
        """
        if self._process is None:
            return
        pool: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            pool = psutil.Process(self._process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session, so only what it started
        self._process.wait()
        psutil.wait_procs(pool, timeout=KILL_WAIT_S)
        self._remove_metrics()

    def _remove_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.remove()
            self._metrics = None

    def _url(self) -> str:
        if self._redis_url is not None:
            return self._redis_url
        return QueueSettings.model_validate(self._section("queue")).url

    def _tools(self) -> ToolSettings:
        return ToolSettings.model_validate(self._section("tools"))

    def _section(self, name: str) -> Any:
        return json.loads(self._config.read_text(encoding="utf-8")).get(name, {})

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace", encoding="utf-8")[-LOG_TAIL:]
