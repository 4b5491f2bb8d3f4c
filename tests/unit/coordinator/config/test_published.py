"""The published recipes of LLM-I (arXiv 2509.13642): each value of `*_published`, and what the asynchronous
configurations change.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from coordinator.config import files
from coordinator.config.settings import load

# The paper's "Training" section and the released scripts. Lines: what all recipes share.
RECIPE = {
    # algorithm and batch
    "train.mode": "sync", "train.epochs": 1, "train.n": 8, "train.temperature": 1.0,
    "train.old_log_prob": "recompute", "train.rollout_is": None, "train.filter_groups.enable": False,
    "train.curriculum.enable": False,
    "train.clip_c": 10.0, "train.entropy": 0.0, "train.kl.form": "none",
    "train.lora.rank": 0, "train.verl": {},
    # AdamW
    "train.lr": 1e-6, "train.schedule": "cosine", "train.min_lr_ratio": 0.01, "train.weight_decay": 0.1,
    "train.grad_clip": 1.0,
    # 2 x 8 GPUs
    "train.device": "cuda", "train.trainer_nodes": 2, "train.trainer_gpus": 8,
    "train.tensor_parallel": 2, "train.sequence_parallel": 2,
    # checkpoints
    "train.save_every": 10,
    # the test files, before the first step and every 10 steps
    "train.evaluate_every": 10,
    # reward and judges
    "reward.formula": "llmi",
    "judges.text.model": "Qwen/Qwen3-235B-A22B-Instruct-2507", "judges.text.temperature": 0.5,
    "judges.image.model": "Qwen/Qwen2.5-VL-72B-Instruct",
    # every image counts: no response has room for more tags
    "tools.max_requests": 10_000,
}  # fmt: skip
TEXT = {
    "train.modality": "text", "reward.vl": False, "train.prompt_tokens": 8192, "train.response_tokens": 24576,
    "data.train": ["data/llm-i/train.parquet"], "data.test": ["data/llm-i/test.parquet"],
}  # fmt: skip
GRPO = {
    "train.loss": "grpo", "train.aggregation": "token-mean", "train.batch_size": 32,
    "train.clip_low": 0.2, "train.clip_high": 0.2,
}  # fmt: skip
PUBLISHED = {
    "qwen3_4b_published": RECIPE | TEXT | GRPO | {
        "train.model": "Qwen/Qwen3-4B-Instruct-2507", "train.warmup_steps": 5,
    },
    "qwen3_30b_a3b_published": RECIPE | TEXT | {
        "train.model": "Qwen/Qwen3-30B-A3B-Instruct-2507", "train.warmup_steps": 6,
        "train.loss": "gspo", "train.aggregation": "seq-mean-token-mean", "train.batch_size": 16,
        "train.clip_low": 3e-4, "train.clip_high": 4e-4,
    },
    "qwen2_5_vl_7b_published": RECIPE | GRPO | {
        "train.model": "Qwen/Qwen2.5-VL-7B-Instruct", "train.warmup_steps": 4,
        "train.modality": "vl", "reward.vl": True,
        "train.prompt_tokens": 16384, "train.response_tokens": 16384, "train.image_max_pixels": 1024 * 1024,
        "data.train": ["data/llm-i/train.parquet", "data/llm-i/train_mm.parquet"],
        "data.test": ["data/llm-i/test.parquet", "data/llm-i/test_mm.parquet"],
    },
}  # fmt: skip
NOT_OF_THE_RECIPE = {"train.offload_params"}  # changes where the weights are kept, and no number

ASYNCHRONOUS = {
    "qwen3_4b_grpo": "qwen3_4b_published",
    "qwen3_30b_a3b_gspo": "qwen3_30b_a3b_published",
    "qwen2_5_vl_7b_grpo": "qwen2_5_vl_7b_published",
}
DIFFERENT = {
    "train.mode": "separate_async", "train.trainer_nodes": 1, "train.offload_params": False,
    "train.rollout_is": "token", "train.save_every": 20, "reward.formula": "grounded",
    "tools.max_requests": 11,
}  # fmt: skip


def flat(values: dict, above: str = "") -> Iterator[tuple[str, object]]:
    """The values of a nested mapping, by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def resolved(name: str) -> dict[str, object]:
    return dict(flat(load(name).model_dump(mode="json")))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_is_the_published_one(name):
    values, expected = resolved(name), PUBLISHED[name]
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_sets_nothing_else(name):
    raw, _ = files.read(name)
    sections = {key: raw[key] for key in ("train", "data", "reward")}
    assert {key for key, _ in flat(sections)} <= PUBLISHED[name].keys() | NOT_OF_THE_RECIPE


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_an_asynchronous_configuration_differs_as_it_says(name):
    mine, published = resolved(name), resolved(ASYNCHRONOUS[name])
    assert {key: value for key, value in mine.items() if published[key] != value} == DIFFERENT
    said = yaml.safe_load((files.SHIPPED / f"{name}.yaml").read_text())
    assert dict(flat({key: said[key] for key in ("train", "reward", "tools")})) == DIFFERENT
