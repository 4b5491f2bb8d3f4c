"""A rehearsal reports the prompts that it skips, and a run does not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_folders import write_model_folder

from coordinator.config.settings import RunConfig, load
from coordinator.rehearse.long_prompts import long_prompts, skipped
from workers.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Of three prompts one has more than 2048 tokens and one more than the configured 8192."""
    file = tmp_path / "train.parquet"
    questions = ["word", "word " * 1000, "word " * 3000]  # three tokens each
    rows = [
        {
            "prompt": question,
            "data_source": "interleaved",
            "extra_info": {"image_num": 0, "tools": ["search"], "question": question, "split": "train"},
        }
        for question in questions
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return load("qwen3_4b_grpo", {"data.train": [str(file)], "data.test": [], "train.evaluate_every": 0})


def test_prompts_are_counted_with_the_tokenizer_of_the_model(config: RunConfig, tmp_path: Path) -> None:
    model = write_model_folder("Qwen3-4B", tmp_path / "model")
    (found,) = long_prompts(config, 2048, model)
    assert str(found) == "data.train (1 of 2 prompts have more than 2048 tokens, the most in a rehearsal)"


def test_nothing_is_counted_where_the_length_is_as_configured(config: RunConfig, tmp_path: Path) -> None:
    assert long_prompts(config, config.train.prompt_tokens, tmp_path / "absent") == []


def test_no_prompt_that_a_rehearsal_takes_is_an_error_that_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"data.test: every prompt has more than 10 tokens, .* data.test=FILE"
    ):
        skipped({"data.train": [10, 11], "data.test": [11, 20, 21]}, limit=10, configured=20)


def test_no_prompt_that_a_run_takes_is_an_error_of_the_configured_value() -> None:
    with pytest.raises(ConfigError, match=r"data.train: no prompt fits train.prompt_tokens = 20"):
        skipped({"data.train": [21]}, limit=10, configured=20)
