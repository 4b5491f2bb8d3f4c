"""LoRA: what separate generators get after one step, from verl's own engine with a tiny random Qwen3."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

STEP = Path(__file__).parents[1] / "support" / "lora_step.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `lora_step.py` prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {
        "VERL_USE_EXTERNAL_MODULES": "policy.cpu", "VERL_PLATFORM": "cpu", "TORCHDYNAMO_DISABLE": "1",
        "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(STEP), str(tmp_path_factory.mktemp("model"))]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | env, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_generator_follows_the_trainer_when_adapters_are_merged(found):
    merged = found["merged"]
    moved = [abs(after - before) for before, after in zip(merged["before"], merged["after"], strict=True)]
    assert max(moved) > 0.1
    # verl sends merged weights as bfloat16.
    assert merged["after"] == pytest.approx(merged["trained"], abs=0.01)


def test_without_merging_the_generator_never_changes(found):
    """Why it is refused. When this fails, verl sends adapters: see `policy.train.options.combinations`."""
    alone = found["alone"]
    assert alone["after"] == alone["before"]
    assert alone["trained"] != pytest.approx(alone["before"], abs=0.05)
