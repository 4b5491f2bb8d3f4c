"""verl's trainers as they are registered: the same group has the same id in every life of a run, in each
mode."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

MODES = ("sync", "colocate_async", "separate_async")
NAMES = [f"lasting_{mode}" for mode in MODES] + [f"admitting_{mode}" for mode in MODES[1:]]


@pytest.fixture
def trainer(tmp_path):
    """`trainer(name)` makes one, without what it would train."""
    from verl.trainer.ppo.v1 import get_trainer_cls

    from policy.train import trainer

    def make(name: str):
        trainer.run_uuid.cache_clear()  # a process of its own
        made = object.__new__(get_trainer_cls(name))
        sampler = {"sampler_kwargs": {"run": str(tmp_path)}}
        made.config = OmegaConf.create({"trainer": {"v1": {"sampler": sampler}}})
        made.train_dataloader_it = iter(
            [{"raw_prompt": ["p", "q"], "index": np.array([4, 7]), "visit": np.array([0, 1])}]
        )
        return made

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_group_read_again_has_the_id_that_it_had(name, trainer):
    first, again = (list(trainer(name)._fetch_one_gen_batch()["uid"]) for _ in range(2))
    assert first == again
    assert len(set(first)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_what_a_checkpoint_holds_of_the_batch_it_was_made_of_is_cleared(name, trainer, monkeypatch):
    from verl.trainer.ppo.v1 import PPOTrainer

    from policy.train import trainer as module

    held = {"a_0_0": {}, "b": {"is_prompt": True}, "b_0_0": {}}
    cleared = []
    made = trainer(name)

    def load(self):
        self.global_steps = 2

    monkeypatch.setattr(PPOTrainer, "_load_checkpoint", load)
    monkeypatch.setattr(module.tq, "kv_list", lambda partition: {partition: held})
    monkeypatch.setattr(module.tq, "kv_clear", lambda *, keys, partition_id: cleared.extend(keys))
    made._load_checkpoint()
    assert cleared == ["a_0_0"]
