"""verl's trainers as they are registered: a group has the same id before and after a resume, in each mode."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader

MODES = ("sync", "colocate_async", "separate_async")
NAMES = [f"resumable_{mode}" for mode in MODES] + [f"windowed_{mode}" for mode in MODES[1:]]


@pytest.fixture
def trainer(tmp_path):
    """`trainer(name)` makes one without models."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    from policy.train import trainer

    def make(name: str):
        trainer.run_uuid.cache_clear()  # as in another process
        made = object.__new__(get_trainer_cls(name))
        sampler = {"sampler_kwargs": {"run": str(tmp_path)}}
        made.config = OmegaConf.create({"trainer": {"v1": {"sampler": sampler}}})
        made.train_dataloader_it = iter(
            [{"raw_prompt": ["p", "q"], "index": np.array([4, 7]), "visit": np.array([0, 1])}]
        )
        return made

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_group_read_again_has_the_same_id(name, trainer):
    first, again = (list(trainer(name)._fetch_one_gen_batch()["uid"]) for _ in range(2))
    assert first == again
    assert len(set(first)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_that_a_checkpoint_was_made_of_is_cleared(name, trainer, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainer

    from policy.train import verl_private

    held = {"a_0_0": {}, "b": {"is_prompt": True}, "b_0_0": {}}
    cleared = []
    made = trainer(name)

    def load(self):
        self.global_steps = 2

    monkeypatch.setattr(PPOTrainer, "_load_checkpoint", load)
    monkeypatch.setattr(verl_private.tq, "kv_list", lambda partition: {partition: held})
    monkeypatch.setattr(verl_private.tq, "kv_clear", lambda *, keys, partition_id: cleared.extend(keys))
    made._load_checkpoint()
    assert cleared == ["a_0_0"]


@pytest.mark.parametrize("name", NAMES)
def test_the_sums_of_the_losses_become_metrics_of_the_step(name, trainer, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainer

    from policy.train.gradient.metrics import CLIPPED, EFFECTIVE

    sums = {"tokens": 4, "weight": 4.0, "weight_squared": 8.0, "above": 1, "below": 2, "kl": 0.4, "k3": 0.2}
    sums["clipped"] = 3

    def step(self, metrics, timing_raw):
        metrics |= {f"actor/rollout_corr/{name}": total for name, total in sums.items()}
        metrics |= {"actor/pg_clipfrac": 0.25, "actor/pg_clipfrac_lower": 0.125}
        return SimpleNamespace(keys=[], tags=[])

    monkeypatch.setattr(PPOTrainer, "step", step)
    metrics, made = {}, trainer(name)
    made.train_dataset = SimpleNamespace(metrics=lambda: {"prompts/untried": 3})
    made.step(metrics, {})
    assert metrics == {
        "prompts/untried": 3,
        "actor/pg_clipfrac": 0.25,
        "actor/pg_clipfrac_lower": 0.125,
        "rollout_corr/rollout_is_mean": 1.0,
        EFFECTIVE: 0.5,
        "rollout_corr/rollout_is_ratio_fraction_high": 0.25,
        "rollout_corr/rollout_is_ratio_fraction_low": 0.5,
        "rollout_corr/kl": 0.1,
        "rollout_corr/k3_kl": 0.05,
        CLIPPED: 0.75,
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_sampler_reports_failed_groups_to_the_manager_of_rollout_processes(name, trainer, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainer

    from policy.train.dispatch import LeastLoadedManager
    from policy.train.evaluation import documents

    monkeypatch.setattr(PPOTrainer, "_add_async_warmup_batches", lambda self, number: None)
    monkeypatch.setattr(documents.tq, "kv_list", lambda partition: {})
    made = trainer(name)
    for mode in MODES:
        made.config.trainer.v1[mode] = {"num_warmup_batches": 1}
    made.config.data = {"curriculum": {"enable": False}}
    made.train_dataset, made.train_dataloader = SimpleNamespace(results="results"), StatefulDataLoader([])
    made.agent_loop_manager, made.replay_buffer = object.__new__(LeastLoadedManager), SimpleNamespace()
    made.on_train_begin()
    assert made.replay_buffer.groups_failed == made.agent_loop_manager.groups_failed
    assert made.replay_buffer.results == "results"
