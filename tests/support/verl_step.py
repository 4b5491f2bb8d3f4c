"""One step of verl's V1 trainer (0.9.1) without models, processes or a transfer queue.

verl computes old log-probabilities, correction, advantages and loss. Here are only what it calls: a queue in
memory, and workers with fixed log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainer, trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.metric.utils import Metric
from verl.workers.utils.losses import ppo_loss

import policy.train.gradient.advantage  # noqa: F401 - registers what the options name
import policy.train.gradient.losses  # noqa: F401 - registers what the options name
from policy.train.gradient.metrics import complete

PROMPT = 3  # tokens of each prompt


@dataclass(frozen=True)
class Sample:
    """A document: its group, its reward, and the log-probabilities of its tokens.

    `sampler`: of the weights that wrote it; `old`: before the step; `new`: when the loss is computed.
    """

    group: str
    reward: float
    sampler: list[float]
    old: list[float]
    new: list[float]


@dataclass
class Step:
    """What a step computed. `gradient`: of the loss by the new log-probabilities, one list a sample."""

    loss: float
    gradient: list[list[float]]
    fields: set[str]
    metrics: dict[str, Any] = field(default_factory=dict)


def step(options: Any, samples: list[Sample], slots: int, micro_batches: list[int], patch: Any) -> Step:
    """Train on `samples`, padded to `slots`, in micro-batches of these sizes.

    `options`: verl's composed configuration. `patch`: pytest's `monkeypatch`.
    """
    rows = [*samples, *[None] * (slots - len(samples))]
    store = _batch(rows)
    keys = [f"{sample.group if sample else 'pad'}_{i}_0" for i, sample in enumerate(rows)]
    queue = _Queue(
        store, KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id="train", extra_info={})
    )
    patch.setattr(trainer_base, "tq", queue)
    trainer = object.__new__(PPOTrainerSync)
    trainer.config = options
    trainer.actor_rollout_wg = SimpleNamespace(compute_log_prob=lambda batch: queue.batch)
    metrics: dict[str, Any] = {}
    PPOTrainer._compute_old_log_prob(trainer, queue.batch, metrics)
    PPOTrainer._compute_advantage(trainer, queue.batch, metrics)
    loss, gradient, worker = _train(
        omega_conf_to_dataclass(options.actor_rollout_ref.actor), store, rows, micro_batches
    )
    metrics |= {
        name if name.startswith("actor/") else f"actor/{name}": value for name, value in worker.items()
    }
    complete(metrics)
    return Step(loss, gradient[: len(samples)], set(store.keys()), metrics)


class _Queue:
    """The calls of verl's transfer queue, on one batch in memory."""

    def __init__(self, store: TensorDict, batch: KVBatchMeta):
        self._store = store
        self.batch = batch

    def kv_batch_get(self, *, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        return self._store.select(*[name for name in select_fields if name in self._store])

    def kv_batch_put(self, *, keys: list[str], partition_id: str, fields: TensorDict) -> KVBatchMeta:
        self._store.update(fields)
        return self.batch


def _batch(rows: list[Sample | None]) -> TensorDict:
    """The fields of a batch as the rollouts and `compute_log_prob` of the workers leave them."""

    def nested(one: Any) -> torch.Tensor:
        values = [torch.tensor(one(row)) for row in rows]
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)

    def length(row: Sample | None) -> int:
        return len(row.sampler) if row else 1

    def whole(row: Sample | None, name: str) -> list[float]:
        """In the model's layout: the log-probability of a token stands at the token before it."""
        return [0.0] * (PROMPT - 1) + (getattr(row, name) if row else [0.0]) + [0.0]

    mask = nested(lambda row: [int(row is not None)] * length(row))
    fields = {
        "prompts": nested(lambda row: [1] * PROMPT),
        "responses": nested(lambda row: [1] * length(row)),
        "response_mask": mask,
        "loss_mask": mask,
        "rm_scores": nested(lambda row: [0.0] * (length(row) - 1) + [row.reward if row else 0.0]),
        "rollout_log_probs": nested(lambda row: row.sampler if row else [0.0]),
        "log_probs": nested(lambda row: whole(row, "old")),
        "entropy": nested(lambda row: [0.0] * (PROMPT + length(row))),
        "new": nested(lambda row: whole(row, "new")),
    }
    store = TensorDict(fields, batch_size=len(rows))
    tu.assign_non_tensor_stack(store, "uid", [row.group if row else "pad" for row in rows])
    return store


def _train(
    config: Any, store: TensorDict, rows: list[Sample | None], micro_batches: list[int]
) -> tuple[float, list[list[float]], dict[str, float]]:
    """verl's loss of each micro-batch, and the gradient that all of them add up to."""
    total, gradient, collected, first = 0.0, [], {}, 0
    for size in micro_batches:
        part = tu.index_select_tensor_dict(store, list(range(first, first + size)))
        first += size
        new = part["new"].values().clone().requires_grad_()
        tu.assign_non_tensor(
            part,
            dp_size=1,
            batch_num_tokens=int(store["loss_mask"].values().sum()),
            global_batch_size=len(rows),
        )
        loss, metrics = ppo_loss(config, {"log_probs": new}, part)
        loss.backward()
        total += loss.item()
        lengths = [int(length) for length in part["responses"].offsets().diff()]
        for one, length in zip(new.grad.split([PROMPT + length for length in lengths]), lengths, strict=True):
            gradient.append(one[PROMPT - 1 : PROMPT - 1 + length].tolist())
        for name, value in metrics.items():
            collected.setdefault(name, []).append(value)
    return (
        total,
        gradient,
        {name: Metric.aggregate_dp([_joined(values)]) for name, values in collected.items()},
    )


def _joined(values: list[Metric]) -> Metric:
    joined = values[0].init_list()
    for value in values:
        joined.append(value)
    return joined
