"""The rows that verl's data loader gets."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

CONFIG = OmegaConf.create({"system_prompt": False, "max_prompt_length": 50})


class Words:
    """A tokenizer of words."""

    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"].split()


@pytest.fixture
def file(tmp_path):
    def row(question: str) -> dict:
        info = {"image_num": 0, "tools": ["search"], "question": question, "split": "train"}
        return {"prompt": question, "data_source": "interleaved", "extra_info": info}

    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row("one"), row("word " * 60), row("two")]), path)
    return path


def test_a_prompt_that_does_not_fit_is_left_out(file):
    from policy.verl_dataset import InterleavedDataset

    dataset = InterleavedDataset(str(file), Words(), CONFIG)
    assert [dataset[item]["raw_prompt"][-1]["content"] for item in range(len(dataset))] == ["one", "two"]


def test_a_row_tells_how_often_it_was_read_before(file):
    from policy.verl_dataset import InterleavedDataset

    dataset = InterleavedDataset([str(file)], Words(), CONFIG)
    read = [(row["index"], row["visit"]) for row in (dataset[0], dataset[1], dataset[0], dataset[0])]
    assert read == [(0, 0), (1, 0), (0, 1), (0, 2)]
