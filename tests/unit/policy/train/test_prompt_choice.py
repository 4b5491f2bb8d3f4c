"""The choice of prompts in verl's trainers, with the dataset, the data loader and verl's order of prompts."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

ROWS, BATCH, FIRST_PASS = 12, 3, 4


class Words:
    """A tokenizer of words."""

    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"].split()


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """`trainer(saved, enable=True)`: one without models that has read the state of a checkpoint, or none."""
    from verl.trainer.ppo.v1 import PPOTrainer, get_trainer_cls

    from policy.train import trainer as module
    from policy.train.evaluation import trainer as evaluating

    def row(number: int) -> dict:
        info = {"image_num": 0, "tools": [], "question": f"question {number}", "split": "train"}
        return {"prompt": info["question"], "data_source": "interleaved", "extra_info": info}

    file = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row(number) for number in range(ROWS)]), file)
    monkeypatch.setattr(PPOTrainer, "_add_async_warmup_batches", lambda self, number: None)
    monkeypatch.setattr(evaluating, "discard", lambda: None)  # needs the transfer queue

    def make(saved=None, *, enable: bool = True):
        module.run_uuid.cache_clear()  # as in another process
        made = object.__new__(get_trainer_cls("windowed_separate_async"))
        made.config = OmegaConf.create(
            {
                "data": {
                    "custom_cls": {"path": "pkg://policy.data.verl_dataset", "name": "InterleavedDataset"},
                    "train_files": [str(file)],
                    "val_files": [str(file)],
                    "train_batch_size": BATCH,
                    "val_batch_size": None,
                    "gen_batch_size": 1,
                    "dataloader_num_workers": 0,
                    "max_prompt_length": 50,
                    "system_prompt": False,
                    "shuffle": True,
                    "seed": 1,
                    "curriculum": {"enable": enable, "floor": 0.2, "half_life": 1.0},
                },
                "algorithm": {},
                "trainer": {
                    "total_epochs": 4,
                    "total_training_steps": None,
                    "v1": {
                        "sampler": {"sampler_kwargs": {"run": str(tmp_path)}},
                        "separate_async": {"num_warmup_batches": 0},
                    },
                },
                "actor_rollout_ref": {"actor": {"optim": {}}},
            }
        )
        made.trainer_mode, made.parameter_sync_step, made.global_steps = "separate_async", 1, 1
        made.tokenizer, made.processor = Words(), None
        made._init_dataloader()
        if saved is not None:
            made.train_dataloader.load_state_dict(torch.load(saved, weights_only=False))
        made.agent_loop_manager, made.replay_buffer = None, SimpleNamespace()
        made.on_train_begin()
        return made

    return make


def step(made, waiting: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Record the groups that wait, and return the prompts submitted then, with their visits."""
    made.replay_buffer.results.start_step()
    for index, visit in waiting:
        solved = index % 4 if visit % 2 else 2 * (index % 2)  # 2 of 4 samples: a signal
        made.replay_buffer.results.record(index, [1.0] * solved + [0.0] * (4 - solved))
    batch = made._next_train_batch()
    return list(zip(map(int, batch["index"]), map(int, batch["visit"]), strict=True))


@pytest.mark.parametrize("at", [2, FIRST_PASS, 7])
def test_a_resumed_run_reads_the_same_prompts_from_the_same_results(at, trainer, tmp_path):
    """Also when results come before the first prompt that it reads."""
    whole, waiting, read = trainer(), [], []
    for number in range(1, 13):
        waiting = step(whole, waiting)
        read.append(waiting)
        if number == at:
            torch.save(whole.train_dataloader.state_dict(), tmp_path / "data.pt")
    resumed, again = trainer(tmp_path / "data.pt"), read[:at]
    for _ in read[at:]:
        again.append(step(resumed, again[-1]))
    assert again == read
    groups = [group for batch in read for group in batch]
    assert len(set(groups)) == len(groups), "two groups have the same prompt and visit, and so the same id"
    assert sorted(index for index, _ in groups[:ROWS]) == list(range(ROWS))
    assert resumed.train_dataset.metrics() == whole.train_dataset.metrics()


def test_prompts_with_a_signal_are_read_more_often(trainer):
    chosen: Counter[bool] = Counter()
    made, waiting = trainer(), []
    for number in range(40):
        waiting = step(made, [(index, 0) for index, _ in waiting])
        if number >= FIRST_PASS:
            chosen.update(index % 2 == 1 for index, _ in waiting)
    assert chosen[True] > 2 * chosen[False] > 0
    assert made.train_dataset.metrics()["prompts/effective"] < 0.8 * ROWS


def test_off_every_epoch_has_each_prompt_once(trainer):
    made, waiting, read = trainer(enable=False), [], []
    for _ in range(3 * FIRST_PASS):
        waiting = step(made, waiting)
        read += waiting
    epochs = [read[start : start + ROWS] for start in range(0, len(read), ROWS)]
    assert [sorted(epoch) for epoch in epochs] == [
        [(row, visit) for row in range(ROWS)] for visit in range(3)
    ]
    assert "prompts/effective" not in made.train_dataset.metrics()


def test_the_rows_of_an_evaluation_are_not_chosen(trainer):
    made = trainer()
    for _ in range(3):
        assert sorted(int(index) for batch in made.val_dataloader for index in batch["index"]) == list(
            range(ROWS)
        )
