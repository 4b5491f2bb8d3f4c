"""The Ray cluster of a run, started for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cpu_train import CPU_TRAIN

from coordinator.config.settings import RaySettings
from coordinator.host.ray_cluster import RayCluster
from policy.settings import TrainSettings

TWO_CLUSTERS = """
import sys
from pathlib import Path

from coordinator.config.settings import RaySettings
from coordinator.host.ray_cluster import RayCluster
from policy.settings import TrainSettings

train = TrainSettings.model_validate_json(sys.argv[2])
for name in ("first", "second"):
    cluster = RayCluster(RaySettings(num_cpus=1, object_store_mb=100), train, (), Path(sys.argv[1]) / name)
    cluster.start()
    import ray

    print(name, ray.get(ray.put("stored")))
    cluster.stop()
"""


def test_a_process_starts_one_cluster_after_another(tmp_path: Path):
    unset = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", TWO_CLUSTERS, str(tmp_path), json.dumps(CPU_TRAIN)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:2] == ["first stored", "second stored"]


def test_a_cluster_that_does_not_start_is_an_error_of_the_connection(tmp_path, monkeypatch):
    import ray

    def init(**_options: object) -> None:
        raise Exception("The current node timed out during startup.\nsecond line")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = RayCluster(RaySettings(), TrainSettings(**CPU_TRAIN), (), tmp_path / "work")
    with pytest.raises(ConnectionError, match=r"did not start on this machine: The current .*\.$"):
        cluster.start()
    cluster.stop()
