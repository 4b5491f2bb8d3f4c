"""A rehearsal of a shipped configuration for GPUs: two GRPO steps and a checkpoint on this machine's CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from rehearsals import Rehearsed, rehearse

from coordinator.watch import evaluations
from policy.settings import checkpoint

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    return rehearse("qwen3_4b_grpo", tmp_path_factory.mktemp("rehearsal"))


def test_it_trains_two_steps_and_leaves_a_checkpoint(rehearsed: Rehearsed) -> None:
    assert [step["training/global_step"] for step in rehearsed.metrics] == [1, 2]
    assert (checkpoint(rehearsed.folder, 2) / "actor").is_dir()


def test_it_evaluates_the_test_files(rehearsed: Rehearsed) -> None:
    found = evaluations.read(rehearsed.folder / "metrics.jsonl")
    assert [one.version for one in found] == [0, 2]
    assert [one.documents + one.masked for one in found] == [2, 2]


def test_tools_and_judges_answer_the_tiny_model(rehearsed: Rehearsed) -> None:
    answered = {
        one.request.kind for one in rehearsed.ledger.requests.values() if one.outcome and one.outcome.ok
    }
    assert {"judge_text", "judge_image"} <= answered
    assert answered & {"search", "diffusion", "code", "edit"}


def test_what_a_cpu_cannot_is_named(rehearsed: Rehearsed) -> None:
    named = {one["option"]: one for one in rehearsed.result["not_rehearsed"]}
    assert named["train.tensor_parallel"]["value"] == 2
    assert named["actor_rollout_ref.rollout.checkpoint_engine.backend"]["why"].startswith("needs NCCL")


def test_the_tiny_model_is_gone(rehearsed: Rehearsed) -> None:
    config = (rehearsed.folder / "config.yaml").read_text()
    (line,) = [
        line for line in config.splitlines() if line.strip().startswith("model: ") and "/model" in line
    ]
    assert not Path(line.split()[-1]).exists()
