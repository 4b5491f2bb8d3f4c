"""The metrics of the documents of a step, on a simulated transfer queue."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tensordict import NonTensorData, NonTensorStack

PADDING = {"is_padding": True}


@pytest.fixture
def metrics_of(monkeypatch):
    """`metrics_of(infos, tags)`: the metrics of a batch with these numbers."""
    from policy.train import document_metrics

    def compute(infos, tags=None):
        keys = [f"a_{n}_0" for n in range(len(infos))]

        def kv_batch_get(*, keys, partition_id, select_fields):
            assert (partition_id, select_fields) == ("train", ["extra_fields"])
            held = [{"reward_extra_info": infos[int(key.split("_")[1])]} for key in keys]
            return {"extra_fields": NonTensorStack(*map(NonTensorData, held))}

        monkeypatch.setattr(document_metrics.tq, "kv_batch_get", kv_batch_get)
        batch = SimpleNamespace(keys=keys, tags=tags or [{}] * len(keys), partition_id="train")
        return document_metrics.document_metrics(batch)

    return compute


def test_numbers_are_averaged_over_the_documents_that_have_them(metrics_of) -> None:
    infos = [
        {"reward": 0.5, "terms/M": 0.25, "caught/repeated": 1.0},
        {"reward": 0.7, "caught/repeated": 0.0},
        {"reward": 0.9, "terms/M": 0.75, "caught/repeated": 0.0},
    ]
    assert metrics_of(infos) == {"caught/repeated": pytest.approx(1 / 3), "terms/M": 0.5}


def test_padding_is_no_document(metrics_of) -> None:
    infos = [{"terms/L": 0.25}, {"terms/L": 1.0}]
    assert metrics_of(infos, tags=[{}, PADDING]) == {"terms/L": 0.25}
    assert metrics_of(infos, tags=[PADDING, PADDING]) == {}


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_the_step_of_each_trainer_adds_them(mode, metrics_of, monkeypatch) -> None:
    from verl.trainer.ppo.v1 import PPOTrainer, get_trainer_cls

    from policy.train import trainer

    metrics_of([])
    monkeypatch.setattr(PPOTrainer, "step", lambda self, metrics, timing: "batch")
    monkeypatch.setattr(trainer, "document_metrics", lambda batch: {"terms/L": 0.5} if batch else {})
    metrics: dict[str, float] = {"reward": 1.0}
    made = object.__new__(get_trainer_cls(f"resumable_{mode}"))
    made.train_dataset = SimpleNamespace(metrics=dict)
    assert made.step(metrics, {}) == "batch"
    assert metrics["terms/L"] == 0.5
