"""`llmi sft` before anything is started: the documents of its sources, and what is refused."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from cpu_train import CPU_TRAIN
from model_folders import write_model_folder
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.config.settings import check
from coordinator.sft.documents import collect
from coordinator.sft.prepare import prepare
from policy.data.dataset import load_rows
from policy.document import Document, TextPart
from policy.grammar.prompts import system_prompt
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from policy.sft.examples import Example, write
from workers.errors import ConfigError

QUESTIONS = ("Write of cats.", "Write of dogs.", "Write of owls.")


def quiet(*_: object) -> None:
    """Shows no progress."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model_folder("Qwen3-4B", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(tmp_path):
    """A run with one scored document for each of three prompts, the rewards 0.2, 0.5 and 0.8."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    rows = [
        {
            "prompt": question,
            "data_source": "interleaved",
            "extra_info": {"image_num": 0, "tools": [], "question": question, "split": "train"},
        }
        for question in QUESTIONS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    config = {"train": {"model": "m"}, "data": {"train": [str(tmp_path / "prompts.parquet")]}}
    check({"name": "first", **config}, "here").save(folder)
    writer = LedgerWriter(folder, "rollout")
    for number, row in enumerate(load_rows(tmp_path / "prompts.parquet")):
        name = f"group{number}_0"
        writer.started(name, row.task(), step=1)
        document = Document(rollout_id=name, task=row.task(), parts=(TextPart(text=f"Text {number}."),))
        writer.scored(document, Score(reward=0.2 + 0.3 * number), tokens=3, versions=(0, 0))
    writer.close()
    return folder


@pytest.fixture
def configured(model, tmp_path):
    def make(train: dict | None = None, **sft):
        document = {
            "name": "warm",
            "train": {**CPU_TRAIN, "model": str(model), "prompt_tokens": 4000, **(train or {})},
            "sft": {"batch_size": 1, **sft},
            "data": {"train": [str(tmp_path / "prompts.parquet")]},
        }
        return check(document, "here")

    return make


def test_the_documents_of_a_run_are_found_by_its_name_or_folder(configured, run, tmp_path):
    for source in ("first", str(run)):
        found = collect(configured(source=source, min_reward=0.4), tmp_path / "runs")
        assert [(one.text, round(one.reward or 0, 3)) for one in found.examples] == [
            ("Text 2.", 0.8),
            ("Text 1.", 0.5),
        ]
        assert found.examples[0].messages[0] == {"role": "system", "content": system_prompt()}
        assert dict(found.left_out) == {"with a reward below sft.min_reward": 1}


def test_a_training_is_prepared_and_nothing_is_written(configured, run, tmp_path):
    prepared = prepare(configured(source="first", epochs=2), tmp_path / "runs", quiet)
    assert (prepared.plan.steps, prepared.plan.per_epoch) == (6, 3)
    assert len(prepared.selection.examples) == 3
    assert prepared.longest > prepared.tokens > 3
    assert not prepared.run.exists()


@pytest.mark.parametrize(
    ("sft", "train", "message"),
    [
        ({}, {}, r"sft.source: is empty; name a run or a Parquet file of conversations, here or by --from"),
        ({"source": "none"}, {}, r"sft.source: none: does not exist; name a Parquet file of conversations"),
        (
            {"source": "first", "min_reward": 0.9}, {},
            r"no document is left \(3 with a reward below sft.min_reward\); lower sft.min_reward \(0.9\)",
        ),
        (
            {"source": "first", "max_tokens": 20}, {},
            r"sft.max_tokens: 20 is less than the longest document with its prompt, \d+ tokens \(3 of 3",
        ),
        ({"source": "first", "batch_size": 4}, {}, r"sft.batch_size: 4 is more than the 3 documents"),
        ({"source": "first", "verl": {"optim": {"lr": 1}}}, {}, r"sft.verl.optim.lr: .* set sft.lr"),
        ({"source": "first", "max_tokens": 9000}, {}, r"more than train.micro_batch_tokens times .* = 8192"),
        ({"source": "first"}, {"trainer_nodes": 2}, r"train.trainer_nodes: .* set 1 \(it is 2\)"),
        (
            {"source": "first"}, {"verl": {"actor_rollout_ref": {"model": {"custom_chat_template": "x"}}}},
            r"train.verl.actor_rollout_ref.model.custom_chat_template: llmi sft does not read it",
        ),
        ({"source": "first"}, {"model": "./nowhere"}, r"train.model: nowhere holds no config.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_with_its_cure(configured, run, tmp_path, sft, train, message):
    with pytest.raises(ConfigError, match=message):
        prepare(configured(train, **sft), tmp_path / "runs", quiet)


@pytest.mark.parametrize("folder", ["a?b", "a#b"])
def test_a_folder_that_the_ranks_cannot_meet_in_is_refused(configured, run, tmp_path, folder):
    with pytest.raises(ConfigError, match=r"--dir: .* has a \? or #, .*; name another"):
        prepare(configured(source=str(run)), tmp_path / folder, quiet)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "tokenizer.chat_template is not set"),
        (
            "{{ raise_exception('no system role') }}",
            r"\(no system role\); .* set train.system_prompt to false",
        ),
    ],
)
def test_a_model_that_cannot_render_the_messages_is_refused(configured, model, run, tmp_path, template, why):
    shutil.copytree(model, tmp_path / "other")
    file = tmp_path / "other" / "chat_template.jinja"
    file.unlink()
    if template:
        file.write_text(template)
    with pytest.raises(ConfigError, match=rf"train.model: the chat template of .* cannot render .*{why}"):
        prepare(configured({"model": str(tmp_path / "other")}, source="first"), tmp_path / "runs", quiet)


def test_a_model_that_reads_images_is_refused(configured, run, tmp_path):
    config = configured(source="first")
    seeing = config.model_copy(update={"train": config.train.model_copy(update={"modality": "vl"})})
    with pytest.raises(ConfigError, match=r"train.modality: llmi sft trains text models only"):
        prepare(seeing, tmp_path / "runs", quiet)


def test_the_examples_of_an_earlier_training_are_taken_again(configured, tmp_path):
    """Also those with an answer in their context, each once."""
    ask, answer = {"role": "user", "content": "Write."}, {"role": "assistant", "content": "Words."}
    written = [Example((ask,), "Words."), Example((ask, answer, ask), "More.", 0.5, "a_0")]
    write(tmp_path / "runs" / "warm" / "examples.parquet", written)
    config = configured({"system_prompt": False}, source="warm")
    assert list(collect(config, tmp_path / "runs").examples) == written[::-1]  # the best first
    config = configured({"system_prompt": False}, source="warm", min_reward=0.6)
    assert list(collect(config, tmp_path / "runs").examples) == written[:1]


def test_a_document_of_two_sources_is_taken_once(configured, run, tmp_path):
    """A training on a run's documents, and the run."""
    found = collect(configured(source="first"), tmp_path / "runs")
    write(tmp_path / "runs" / "warm" / "examples.parquet", found.examples)
    assert collect(configured(source=["warm", "first"]), tmp_path / "runs").examples == found.examples


def test_a_folder_that_is_no_run_is_refused(configured, tmp_path):
    (tmp_path / "runs" / "other").mkdir(parents=True)
    with pytest.raises(ConfigError, match="other: is no folder of a run"):
        collect(configured(source="other"), tmp_path / "runs")


def test_a_dry_run_prints_the_documents_and_the_options(configured, run, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(configured().model_dump(mode="json", exclude_unset=True)))
    command = [
        "sft",
        str(file),
        "sft.top=0.6",
        "--from",
        "first",
        "--dir",
        str(tmp_path / "runs"),
        "--dry-run",
    ]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "left out: not in the share sft.top" in shown.output
    assert "trainer.total_training_steps=2" in shown.output
    done = CliRunner().invoke(app, [*command, "--json"])
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["documents"], result["left_out"], result["steps"]) == (
        2,
        {"not in the share sft.top": 1},
        2,
    )
    assert result["reward_mean"] == pytest.approx(0.65)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]
