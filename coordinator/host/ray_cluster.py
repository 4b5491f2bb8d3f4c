"""The Ray cluster of a run: the one in RAY_ADDRESS, or one that is started here for the run alone.

This process connects to it as a driver and owns the workers that it places there.

Invariants:
- A cluster in RAY_ADDRESS is never started, configured or stopped.
- A cluster that was started here ends with this process.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from coordinator.config.pools import PoolSettings
from coordinator.config.settings import RAY_ENV, RaySettings
from coordinator.host.environment import environment
from coordinator.host.hardware import detect
from coordinator.host.processes import descendants
from policy.settings import RAY_WORKER_ENV, TrainSettings
from workers.process import interpreter

logger = logging.getLogger(__name__)
CPU_SLOTS = 16  # logical CPUs for verl: each of its actors requests one, whatever the machine has
MIB = 1024**2
AUTH_ENV = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# Of a path below its temporary folder: /ray/session_DATE_TIME_MICROSECONDS_PID/sockets/plasma_store
SOCKET_ROOM = 72


@functools.cache
def _own_token() -> str:
    """One for all clusters of this process: Ray 2.60 reads the token once in each process."""
    return secrets.token_hex(32)


class RayCluster:
    """The cluster of a run. `start` returns the address for the trainer's environment.

    `folder`: an empty working directory, since Ray's workers import from the folder in which a driver
    connected.
    """

    def __init__(
        self, settings: RaySettings, train: TrainSettings, pools: Sequence[PoolSettings], folder: Path
    ):
        self._settings = settings
        self._train = train
        self._pools = pools
        self._folder = folder
        self._connected = False
        self._token = False

    def start(self) -> str:
        """Block until the cluster answers. Raises `ConnectionError` when it does not."""
        if not os.environ.get(RAY_ENV):
            self._set_token()
        import ray

        quiet = {"log_to_driver": False, "configure_logging": False}
        self._folder.mkdir(parents=True, exist_ok=True)
        if address := os.environ.get(RAY_ENV):
            with contextlib.chdir(self._folder):
                ray.init(address=address, **quiet)
            self._connected = True
            return address
        cpu = self._train.device == "cpu"
        slots = CPU_SLOTS + math.ceil(sum(pool.high * pool.cpus for pool in self._pools))
        size = self._settings.object_store_mb
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if cpu:
            # Workers that are started ahead cost 100 MB each, one for each logical CPU.
            os.environ.setdefault("RAY_enable_worker_prestart", "0")
        self._connected = True
        place = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
        wanted = interpreter.child_environment(os.environ).items()
        changes = {name: value for name, value in wanted if os.environ.get(name) != value}
        try:
            with environment(changes), contextlib.chdir(self._folder):
                ray.init(
                    address="local",
                    num_cpus=self._settings.num_cpus or (max(slots, detect().cores) if cpu else None),
                    num_gpus=self._train.gpus if cpu else None,
                    object_store_memory=size * MIB if size else None,
                    include_dashboard=False,
                    _temp_dir=str(interpreter.short_path(place, SOCKET_ROOM) / "ray"),
                    **quiet,
                )
        except Exception as error:  # Ray 2.60 raises a plain one when its processes take too long
            why = str(error).split("\n", 1)[0]
            raise ConnectionError(f"Ray did not start on this machine: {why}") from error
        return ray.get_runtime_context().gcs_address

    def _set_token(self) -> None:
        """Set a token for the clusters of this process alone. Ray would keep one in HOME, which may be
        read-only, and use it for every cluster.
        """
        if any(name in os.environ for name in AUTH_ENV):
            return
        os.environ["RAY_AUTH_TOKEN"] = _own_token()
        if "ray" not in sys.modules:
            # Ray 2.60 reads the mode when it is imported. Without it, Ray sets the mode and prints a warning.
            os.environ["RAY_AUTH_MODE"] = "token"
        self._token = True

    def next_worker_env(self) -> dict[str, str]:
        """The environment variables that Ray will set in the workers of the next driver; empty for a cluster
        in RAY_ADDRESS.

        It is a guess: the workers compare it with the variables that they got.
        """
        import ray

        raylet = next((one.pid for one in descendants() if one.name() == "raylet"), None)
        if raylet is None:
            return {}
        own = int.from_bytes(bytes.fromhex(ray.get_runtime_context().get_job_id()), "little")
        job = (own + 1).to_bytes(4, "little").hex()
        return dict(zip(RAY_WORKER_ENV, (str(raylet), job), strict=True))

    def stop(self) -> None:
        """Disconnect. A cluster that was started here ends."""
        if self._connected:
            import ray

            ray.shutdown()
            self._connected = False
        if self._token:
            for name in AUTH_ENV:
                os.environ.pop(name, None)
            self._token = False
