"""Runs `coordinator.run.launch` as a program of its own, with the module of argument 3 as the trainer.

Used by tests that check what is left after a run: `run_script.py CONFIG RUNS MODULE [resume]`. With
LLMI_TEST_RAY set, no Ray is started and that is its address; workers are then processes of this machine.
"""

import os
import sys
import time
from pathlib import Path

from rich.console import Console

from coordinator.config.settings import load
from coordinator.host.processes import MemoryWatch
from coordinator.host.ray_cluster import RayCluster
from coordinator.host.signals import Stopped, StopSignals
from coordinator.run import services, trainer
from coordinator.run.launch import launch
from coordinator.scale.fleet import local_worker

if __name__ == "__main__":
    config, runs, trainer.MODULE = sys.argv[1:4]
    if address := os.environ.get("LLMI_TEST_RAY"):
        RayCluster.start = lambda self: address  # type: ignore[method-assign]
        services.ray_worker = local_worker
    resume = "resume" in sys.argv[4:]
    try:
        with StopSignals() as signals, MemoryWatch(0.2) as memory:
            summary = launch(load(config), Path(runs), Console(), signals, memory, time.monotonic(), resume)
            print(summary.model_dump_json())
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except trainer.TrainerDied as error:
        print(error)
        sys.exit(1)
