"""`llmi export` and `RUN@STEP`: which checkpoint is meant, what is refused, and what is left of a failure."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from coordinator.config.settings import check
from coordinator.export import export as exports
from coordinator.export.author import with_checkpoint
from coordinator.export.export import Export, ExportFailed, chosen_step, write
from evaluation.settings import AuthorSettings
from workers.errors import ConfigError


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of the steps 4 and 8, as FSDP writes them, but without weights."""
    folder = tmp_path / "runs" / "mine"
    for step in (4, 8):
        actor = folder / "checkpoints" / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        (actor / "fsdp_config.json").touch()
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("8")
    train = {"model": "m", "system_prompt": False}
    check({"name": "mine", "train": train, "data": {"train": ["a.parquet"]}}, "here").save_yaml(folder)
    return folder


@pytest.fixture
def scores(run):
    rows = [
        '{"step": 4, "data": {"critic/score/mean": 0.7}}',
        '{"step": 8, "data": {"critic/score/mean": 0.1}}',
    ]
    (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")


def test_steps_are_named_by_number_last_or_best(run, scores):
    assert [chosen_step(run, wanted) for wanted in ("4", "last", "best")] == [4, 8, 4]


@pytest.mark.parametrize("wanted", ["5", "-1", "first"])
def test_a_step_that_is_missing_is_refused_with_those_that_exist(run, wanted):
    with pytest.raises(ConfigError, match=f"of step {wanted}; name 4, 8, last or best"):
        chosen_step(run, wanted)


def test_without_metrics_the_best_is_unknown(run):
    with pytest.raises(ConfigError, match="have no reward, so the best is not known; name 4, 8, last"):
        chosen_step(run, "best")


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no checkpoint yet"):
        chosen_step(tmp_path, "last")


def test_an_existing_folder_is_never_overwritten(run, tmp_path):
    with pytest.raises(ConfigError, match=r"exists; remove it, or name another folder with --out"):
        write(Export(run, 4, merge_adapter=True), tmp_path, print)


def test_a_checkpoint_of_megatron_is_refused_with_the_command_for_it(run, tmp_path):
    (run / "checkpoints" / "global_step_4" / "actor" / "fsdp_config.json").unlink()
    with pytest.raises(ConfigError, match="--backend megatron --local_dir"):
        write(Export(run, 4, merge_adapter=True), tmp_path / "out", print)


def test_nothing_is_left_of_a_failed_export(run, tmp_path, monkeypatch):
    def fail(module, log):
        model = Path(module[-1])
        model.mkdir()
        (model / "config.json").touch()
        raise ExportFailed("the disk is full")

    monkeypatch.setattr(exports, "_run", fail)
    with pytest.raises(ExportFailed, match="disk"):
        write(Export(run, 4, merge_adapter=True), tmp_path / "out" / "model", print)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_has_the_last_words_of_the_process(tmp_path):
    with pytest.raises(ExportFailed, match=r"no_such_module ended with code 1:\n.*No module named"):
        exports._run(["no_such_module"], tmp_path / "log")


def test_an_exported_step_is_reused_after_its_checkpoint(run):
    folder = run / "exports" / "step-2"
    folder.mkdir(parents=True)
    author = with_checkpoint(AuthorSettings(model="mine@2"), print, run.parent)
    assert (author.model, author.system_prompt) == (str(folder), False)
    by_folder = with_checkpoint(AuthorSettings(model=f"{run}@2"), print)
    assert by_folder.model == str(folder)


def test_a_reference_is_exported_with_merged_adapters_once(run, scores, monkeypatch):
    written = []

    def done(module, log):
        written.append(module[-3])
        Path(module[-1]).mkdir()

    monkeypatch.setattr(exports, "_run", done)

    def used(model: str) -> str:
        return with_checkpoint(AuthorSettings(model=model), print, run.parent).model

    assert used("mine@best") == used("mine@4") == str(run / "exports" / "step-4")
    actor = run / "checkpoints" / "global_step_4" / "actor"
    assert written == [str(actor)]
    later = time.time() + 60  # a resumed run has trained the step again
    os.utime(actor / "fsdp_config.json", (later, later))
    assert used("mine@4") == str(run / "exports" / "step-4")
    assert len(written) == 2


@pytest.mark.parametrize(
    "author",
    [
        AuthorSettings(model="Qwen/Qwen3-4B"),
        AuthorSettings(model="team@home"),
        AuthorSettings(model="mine@4", provider="openai"),
    ],
)
def test_other_models_stay_as_they_are(author, run):
    assert with_checkpoint(author, print, run.parent) == author


def test_a_model_folder_may_be_named_like_a_reference(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    Path("mine@4").mkdir()
    assert with_checkpoint(AuthorSettings(model="mine@4"), print, run.parent).model == "mine@4"


def test_a_reference_to_no_run_is_refused(run):
    with pytest.raises(ConfigError, match="yours@4: there is no run yours; name a run of"):
        with_checkpoint(AuthorSettings(model="yours@4"), print, run.parent)
