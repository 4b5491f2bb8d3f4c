"""The trackers of a run through verl's own connections: files are written and read back here.

MLflow and SwanLab are in no lock: CI skips the tests with them, which run where the extra `trackers` is
installed.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import threading
import uuid
from types import SimpleNamespace

import event_file
import pytest
from omegaconf import OmegaConf
from PIL import Image
from rewards_documents import I, P, document
from verl.utils import tracking

from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from policy.tracking.sender import Sender
from policy.train import trackers as trackers_of_runs
from policy.train.trackers import Trackers
from workers.settings import CONFIG_ENV
from workers.storage.blobs import BlobStore

RUN_ID = uuid.UUID(int=9)
STEPS = range(1, 5)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run, with variables of trackers undone at the end."""
    for name in [*os.environ]:
        if name.startswith(("WANDB_", "TENSORBOARD_", "MLFLOW_", "SWANLAB_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"blobs": {"url": str(tmp_path / "blobs")}}))
    monkeypatch.setenv(CONFIG_ENV, str(folder / "config.json"))
    before = dict(os.environ)
    yield folder
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


def config(*names, every=2):
    trainer = {
        "trackers": list(names),
        "pictures_every": every,
        "project_name": "llmi",
        "n": {"a": [1, None]},
    }
    return OmegaConf.create({"trainer": {**trainer, "experiment_name": "demo"}})


def follow(run, names, steps=STEPS):
    """A run of these steps, with two documents each."""
    rollouts, trainer = LedgerWriter(run, "rollout"), LedgerWriter(run, "trainer")
    blobs = BlobStore(json.loads((run / "config.json").read_text())["blobs"]["url"])
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "blue").save(data, "PNG")
    trackers = Trackers(config(*names), run, RUN_ID)
    for step in steps:
        for number, reward in enumerate((0.5, 0.5)):
            name = f"{step}-{number}_0"
            image = I("code", blob=blobs.put(data.getvalue()))
            made = document(P(f"Heron {number}."), image, rollout_id=name)
            rollouts.scored(made, Score(reward=reward), tokens=3)
            trainer.rollout_ended(name, "trained", step=step)
        trackers.log(data={"reward": step / 10, "training/global_step": step, "note": "no number"}, step=step)
    trackers.log(data={"val/reward/mean": 0.5}, step=steps[-1])  # of an evaluation
    trackers.close(failed=False)
    for writer in (rollouts, trainer):
        writer.close()
    return trackers


def test_tensorboard_has_the_metrics_of_each_step_and_pictures_of_some(run):
    trackers = follow(run, ["tensorboard"])
    events = event_file.read(run / "tensorboard")
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("reward")] == [
        (step, step / 10) for step in STEPS
    ]
    assert set(events.Tags()["scalars"]) == {"reward", "training/global_step", "val/reward/mean"}
    assert events.Tags()["images"] == ["documents/0", "documents/1"]
    for tag in events.Tags()["images"]:
        assert [event.step for event in events.Images(tag)] == [2, 4]
        picture = Image.open(io.BytesIO(events.Images(tag)[0].encoded_image_string))
        assert picture.width == 640
        assert (0, 0, 255) in set(picture.get_flattened_data())
    assert trackers.metrics() == {"trackers/tensorboard/lost": 0, "trackers/tensorboard/waiting": 0}


def test_a_resumed_run_writes_into_the_same_folder(run):
    follow(run, ["tensorboard"])
    follow(run, ["tensorboard"], steps=range(5, 7))
    assert [event.step for event in event_file.read(run / "tensorboard").Scalars("reward")] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_wandb_writes_metrics_and_pictures_without_a_key(run):
    follow(run, ["wandb"])
    folder = next((run / "wandb").glob(f"offline-run-*-{RUN_ID.hex}"))
    assert sorted(history(folder)) == [(step, step / 10) for step in STEPS]
    shown = sorted(path.name for path in folder.glob("files/media/images/documents_*.png"))
    assert len(shown) == 4
    assert {name.split("_")[1] for name in shown} == {"2", "4"}


def history(folder):
    """Step and reward of each row in the file of an offline run."""
    from wandb.proto import wandb_internal_pb2

    for data in records(next(folder.glob("*.wandb")).read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.HasField("history"):
            row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            yield int(row["_step"]), float(row["reward"])


def records(data):
    """The records of a LevelDB log, which wandb writes after 7 bytes of its own."""
    at, whole = 7, b""
    while at < len(data):
        if (left := 32_768 - at % 32_768) < 7:  # the end of a block
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield whole
            whole = b""


def test_mlflow_continues_its_run_after_a_resume(run):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    follow(run, ["mlflow"])
    follow(run, ["mlflow"], steps=range(5, 7))
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("llmi").experiment_id])
    assert [(row.step, row.value) for row in client.get_metric_history(found.info.run_id, "reward")] == [
        (step, step / 10) for step in range(1, 7)
    ]
    assert found.data.params["trainer/project_name"] == "llmi"


def test_mlflow_has_the_rows_of_a_run_with_parameters_that_it_refused_at_first(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setattr(tracking, "MLFLOW_SLEEP_SECONDS", 0)
    monkeypatch.setattr(trackers_of_runs, "Sender", functools.partial(Sender, retry_s=0.01))
    log_params, connected = mlflow.log_params, threading.Event()

    def refused(params):
        if params:
            raise ConnectionError("no route to host")
        log_params(params)
        connected.set()

    monkeypatch.setattr(mlflow, "log_params", refused)
    made = Trackers(config("mlflow"), run, RUN_ID)
    for step in STEPS:
        made.log(data={"reward": step / 10}, step=step)
    try:
        assert connected.wait(60)
    finally:
        made.close(failed=False)
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("llmi").experiment_id])
    assert [row.step for row in client.get_metric_history(found.info.run_id, "reward")] == [*STEPS]
    assert found.info.status == "FINISHED"


def test_swanlab_writes_files_without_a_key(run):
    pytest.importorskip("swanlab")
    trackers = follow(run, ["swanlab"])
    assert trackers.metrics() == {"trackers/swanlab/lost": 0, "trackers/swanlab/waiting": 0}
    assert list((run / "swanlab").glob(f"run-*-{RUN_ID.hex}/*.swanlab"))


def test_a_tracker_that_does_not_start_costs_no_other_its_rows(run, monkeypatch):
    import wandb

    def init(**kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(wandb, "init", init)
    trackers = follow(run, ["wandb", "tensorboard"])
    assert [event.step for event in event_file.read(run / "tensorboard").Scalars("reward")] == [*STEPS]
    assert trackers.metrics()["trackers/wandb/waiting"] == len(STEPS) + 1  # and the evaluation


def test_a_tracker_that_hangs_leaves_the_others_their_time_to_finish(run, monkeypatch):
    other_finished, waited = threading.Event(), []

    class Connection:
        def __init__(self, name, *_):
            self.name = name

        def finish(self, failed):
            if self.name == "wandb":
                waited.append(other_finished.wait(10))
            else:
                other_finished.set()

    monkeypatch.setattr(trackers_of_runs, "_VerlTracker", Connection)
    Trackers(config("wandb", "tensorboard"), run, RUN_ID).close(failed=False)
    assert waited == [True]


def test_a_row_counts_as_sent_when_its_pictures_cannot_be_drawn(run, monkeypatch, caplog):
    def draw(self, document, title):
        raise ValueError("no font")

    monkeypatch.setattr(trackers_of_runs.Pictures, "draw", draw)
    trackers = follow(run, ["tensorboard"])
    assert trackers.metrics() == {"trackers/tensorboard/lost": 0, "trackers/tensorboard/waiting": 0}
    assert "tensorboard lacks the pictures of step 2: no font" in caplog.messages
    events = event_file.read(run / "tensorboard")
    assert [event.step for event in events.Scalars("reward")] == [*STEPS]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_closes_its_trackers_however_it_ends(run, monkeypatch, fails):
    from verl.trainer.ppo.v1 import PPOTrainer, get_trainer_cls

    from policy.train import trainer
    from policy.train.evaluation import trainer as evaluating

    monkeypatch.setattr(evaluating, "discard", lambda: None)
    trainer.run_uuid.cache_clear()
    made = object.__new__(get_trainer_cls("resumable_sync"))
    made.config = config("tensorboard")
    made.config.trainer.v1 = {"sampler": {"sampler_kwargs": {"run": str(run)}}}
    made.config.data = {"curriculum": {"enable": False}}
    made.train_dataset = SimpleNamespace(results=None, metrics=dict)
    made.train_dataloader, made.replay_buffer = SimpleNamespace(state_dict=dict), SimpleNamespace()

    def fit(self, agent_loop_manager):
        self.agent_loop_manager = agent_loop_manager
        self.logger = SimpleNamespace(logger={})
        self.on_train_begin()
        metrics = {}
        self.step(metrics, {})
        self.logger.logger["trackers"].log(data={**metrics, "reward": 0.5}, step=1)
        if fails:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(PPOTrainer, "fit", fit)
    monkeypatch.setattr(PPOTrainer, "on_train_begin", lambda self: None)
    monkeypatch.setattr(PPOTrainer, "step", lambda self, metrics, timing: SimpleNamespace(keys=[], tags=[]))
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            made.fit(None)
    else:
        made.fit(None)
    events = event_file.read(run / "tensorboard")
    assert [event.value for event in events.Scalars("reward")] == [0.5]
    assert [event.value for event in events.Scalars("trackers/tensorboard/lost")] == [0]
