"""The rows that verl's data loader gets."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from PIL import Image

from policy.document import Task
from workers.errors import ConfigError
from workers.settings import CONFIG_ENV
from workers.storage.blobs import BlobStore
from workers.storage.cache import CACHE_ENV

CONFIG = OmegaConf.create(
    {
        "system_prompt": False,
        "max_prompt_length": 50,
        "train_batch_size": 2,
        "seed": 1,
        "shuffle": True,
        "curriculum": {"floor": 0.2, "half_life": 1.0},
    }
)


class Words:
    """A tokenizer of words."""

    def apply_chat_template(self, messages, *, thought: int = 0, **_):
        return [*messages[-1]["content"].split(), *["thought"] * thought]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    def row(question: str) -> dict:
        info = {"image_num": 0, "tools": ["search"], "question": question, "split": "train"}
        return {"prompt": question, "data_source": "interleaved", "extra_info": info}

    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row("one"), row("word " * 60), row("two")]), path)
    return path


def test_a_prompt_that_does_not_fit_is_left_out(file):
    from policy.data.verl_dataset import InterleavedDataset

    dataset = InterleavedDataset(str(file), Words(), CONFIG)
    assert [dataset[item]["raw_prompt"][-1]["content"] for item in range(len(dataset))] == ["one", "two"]


def test_what_the_chat_template_adds_counts(file):
    """`train.verl.data.apply_chat_template_kwargs`, which the rollouts use too."""
    from policy.data.verl_dataset import InterleavedDataset

    config = OmegaConf.merge(CONFIG, {"apply_chat_template_kwargs": {"thought": 50}})
    with pytest.raises(ConfigError, match="no prompt fits"):
        InterleavedDataset(str(file), Words(), config)


def test_a_row_has_the_number_of_its_earlier_reads(file):
    from policy.data.verl_dataset import InterleavedDataset

    dataset = InterleavedDataset([str(file)], Words(), CONFIG)
    read = [(row["index"], row["visit"]) for row in (dataset[0], dataset[1], dataset[0], dataset[0])]
    assert read == [(0, 0), (1, 0), (0, 1), (0, 2)]


def test_a_lost_input_image_is_stored_again_at_the_next_read(tmp_path, monkeypatch):
    from policy.data.verl_dataset import InterleavedDataset

    picture, blobs = io.BytesIO(), BlobStore(str(tmp_path / "blobs"))
    Image.new("RGB", (9, 9), "teal").save(picture, "PNG")
    info = {"image_num": 0, "tools": ["edit"], "question": "one", "split": "train"}
    row = {"prompt": "one", "images": [picture.getvalue()], "data_source": "interleaved_mm"}
    pq.write_table(pa.Table.from_pylist([{**row, "extra_info": info}]), tmp_path / "train.parquet")
    (tmp_path / "config.json").write_text(json.dumps({"blobs": {"url": blobs.url}}))
    monkeypatch.setenv(CONFIG_ENV, str(tmp_path / "config.json"))
    dataset = InterleavedDataset(str(tmp_path / "train.parquet"), Words(), CONFIG, processor=object())
    [ref] = Task.model_validate_json(dataset[0]["task"]).inputs
    Path(blobs.location(ref.sha256)).write_bytes(b"damaged")
    assert Task.model_validate_json(dataset[0]["task"]).inputs == (ref,)
    assert blobs.get(ref) == picture.getvalue()


def record(question: str, images: object = None) -> dict:
    info = {"image_num": 0, "tools": ["edit"], "question": question, "split": "train"}
    source = "interleaved" if images is None else "interleaved_mm"
    chat = [{"role": "user", "content": question}]
    return {"prompt": chat, "images": images, "data_source": source, "extra_info": info}


def test_files_with_and_without_images_make_one_batch(tmp_path, monkeypatch):
    """As the vision-language recipe trains: texts and pictures, from two files, a GIF among them."""
    from verl.utils.dataset.rl_dataset import collate_fn

    from policy.data.verl_dataset import InterleavedDataset

    blobs, gif = BlobStore(str(tmp_path / "blobs")), io.BytesIO()
    Image.new("P", (9, 9)).save(gif, "GIF")
    files = [str(tmp_path / "train.parquet"), str(tmp_path / "train_mm.parquet")]
    text = {**record("one"), "prompt": "one"}
    del text["images"]
    pq.write_table(pa.Table.from_pylist([text]), files[0])
    pictured = [record("two <image>", [{"bytes": gif.getvalue(), "path": None}]), record("three")]
    pq.write_table(pa.Table.from_pylist(pictured), files[1])
    (tmp_path / "config.json").write_text(json.dumps({"blobs": {"url": blobs.url}}))
    monkeypatch.setenv(CONFIG_ENV, str(tmp_path / "config.json"))
    dataset = InterleavedDataset(OmegaConf.create(files), Words(), CONFIG, processor=object())
    batch = collate_fn([dataset[item] for item in range(len(dataset))])
    assert [len(chat[-1]["content"]) for chat in batch["raw_prompt"]] == [len("one"), 2, len("three")]
    inputs = [Task.model_validate_json(task).inputs for task in batch["task"]]
    assert [len(refs) for refs in inputs] == [0, 1, 0]
    assert inputs[1][0].media_type == "image/png"


def test_a_resumed_run_continues_counting_reads(file):
    from torchdata.stateful_dataloader import StatefulDataLoader

    from policy.data.verl_dataset import InterleavedDataset

    def loader():
        dataset = InterleavedDataset([str(file)], Words(), CONFIG)
        return StatefulDataLoader(dataset, batch_size=1, num_workers=0, collate_fn=lambda rows: rows[0])

    def read(rows, count):
        return [(row["index"], row["visit"]) for row in itertools.islice(rows, count)]

    first = loader()
    assert read(iter(first), 3) == [(0, 0), (1, 0)]
    rows = iter(first)
    assert read(rows, 1) == [(0, 1)]
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert read(iter(second), 2) == [(1, 1)]
    assert read(iter(second), 2) == [(0, 2), (1, 2)]


def test_rows_are_read_in_the_order_of_verl(file):
    """Without a curriculum, as the published recipes, and in the first pass with one."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.ppo.utils import create_rl_sampler

    from policy.data.verl_dataset import InterleavedDataset

    config = OmegaConf.merge(CONFIG, {"max_prompt_length": 100})

    def read(passes: int, *, prefer: bool) -> list[int]:
        dataset = InterleavedDataset([str(file)] * 4, Words(), config)
        if prefer:
            dataset.prefer_signal()
        sampler = create_rl_sampler(config, dataset)
        loader = StatefulDataLoader(dataset, batch_size=1, sampler=sampler, collate_fn=lambda rows: rows[0])
        found = []
        for row in itertools.chain.from_iterable(loader for _ in range(passes)):
            dataset.results.record(row["index"], [0.0, float(row["index"] == 3)])
            found.append(row["index"])
        return found

    order = list(create_rl_sampler(config, range(12)))
    uniform, chosen = read(3, prefer=False), read(3, prefer=True)
    assert uniform[:12] == chosen[:12] == order
    assert sorted(uniform[12:24]) == sorted(uniform[24:]) == list(range(12))
    assert chosen[12:].count(3) > uniform[12:].count(3)


def test_the_results_of_other_data_end_only_a_run_with_a_curriculum(file):
    from policy.data.verl_dataset import InterleavedDataset

    config = OmegaConf.merge(CONFIG, {"max_prompt_length": 100})
    whole = InterleavedDataset(str(file), Words(), config)
    whole.results.record(0, [0.0, 1.0])
    saved = whole.state_dict()
    fewer = InterleavedDataset(str(file), Words(), config, max_samples=2)
    fewer.load_state_dict(saved)
    assert fewer.results.metrics()["prompts/untried"] == 2
    fewer.prefer_signal()
    with pytest.raises(ConfigError, match="has 2 prompts, and the checkpoint was made with 3"):
        fewer.load_state_dict(saved)
