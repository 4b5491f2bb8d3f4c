"""The Ray cluster of a run: the one RAY_ADDRESS names, or one started here for the run alone.

Invariants: a cluster of the user's own is never started, configured or stopped; ours lives and dies with this
process.
"""

from __future__ import annotations

import logging
import os

from coordinator.config import RAY_ENV, RaySettings
from policy.training import TrainSettings

logger = logging.getLogger(__name__)
CPU_SLOTS = 16  # logical: verl's actors each ask for one, whatever the machine has
MIB = 1024**2


class RayCluster:
    """`start` returns the address for the trainer's environment."""

    def __init__(self, settings: RaySettings, train: TrainSettings):
        self._settings = settings
        self._train = train
        self._owned = False

    def start(self) -> str:
        """Blocks until the cluster answers. Raises ConnectionError when it does not."""
        if os.environ.get(RAY_ENV):
            return os.environ[RAY_ENV]
        import ray

        cpu = self._train.device == "cpu"
        size = self._settings.object_store_mb
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if cpu:
            # Idle workers started ahead cost 100 MB each, and there are as many as logical CPUs.
            os.environ.setdefault("RAY_enable_worker_prestart", "0")
        self._owned = True
        ray.init(
            address="local",
            num_cpus=self._settings.num_cpus or (max(CPU_SLOTS, os.cpu_count() or 1) if cpu else None),
            num_gpus=self._train.gpus if cpu else None,
            object_store_memory=size * MIB if size else None,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
        return ray.get_runtime_context().gcs_address

    def stop(self) -> None:
        if self._owned:
            import ray

            ray.shutdown()
            self._owned = False
