"""What a rehearsal changes in a configuration, and why. Pure.

Invariants:
- Every field that differs in the end is in the answer with its reason; all others are as configured.
- The changed configuration passes the same checks as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.config import overrides
from coordinator.config.settings import RunConfig, ServiceConfig, check
from coordinator.rehearse import verl_section
from coordinator.rehearse.unrehearsed import Unrehearsed
from policy.settings import TrainSettings, half
from rewards import settings as rewards_settings

STEPS = 2
BATCH, GROUP = 2, 4
EVALUATED = 2  # prompts; before the first step and after the last
PROMPT_TOKENS, RESPONSE_TOKENS = 2048, 256
PIXELS = 112 * 112  # 16 tokens of Qwen2.5-VL

GPUS = verl_section.GPUS
SIZE = "what two CPU cores do in two minutes"
MEMORY = verl_section.SIZE
SERVICE = "a small local one takes its place; llmi doctor --config checks yours"
HERE = "a rehearsal starts its own on this machine"


@dataclass(frozen=True)
class _Change:
    """A field of the section `train`. `value`: what it becomes, from the configured section."""

    field: str
    value: Callable[[TrainSettings], object]
    why: str


def _at_most(field: str, most: float, why: str) -> _Change:
    return _Change(field, lambda train: min(getattr(train, field), most), why)


def _one(field: str) -> _Change:
    return _Change(field, lambda train: 1, GPUS)


TRAIN = (
    _Change("device", lambda train: "cpu", "a rehearsal needs no GPU"),
    _Change("steps", lambda train: STEPS, "two steps"),
    _Change("evaluate_prompts", lambda train: EVALUATED if train.evaluate_every else None, SIZE),
    _Change("save_every", lambda train: STEPS, "one checkpoint"),
    _at_most("batch_size", BATCH, SIZE),
    _at_most("n", GROUP, SIZE),
    _Change("min_valid", lambda train: min(train.min_valid, half(min(train.n, GROUP))), SIZE),
    _at_most("prompt_tokens", PROMPT_TOKENS, SIZE),
    _at_most("response_tokens", RESPONSE_TOKENS, SIZE),
    _at_most("image_max_pixels", PIXELS, SIZE),
    *(_one(field) for field in ("tensor_parallel", "sequence_parallel")),
    *(_one(field) for field in ("trainer_nodes", "trainer_gpus", "rollout_nodes", "rollout_gpus")),
    _Change("filter_groups.enable", lambda train: False, "groups of a tiny model may have no signal"),
    _Change("trackers", lambda train: [], "two steps of a tiny model"),
    _at_most("rollout_processes", 2, MEMORY),
    _at_most("rollout_seqs", 16, MEMORY),
    _Change("rollout_batched_tokens", lambda train: _sequence(train), MEMORY),
    _Change("micro_batch_tokens", lambda train: _sequence(train), MEMORY),
    _at_most("gpu_memory", 0.1, MEMORY),
    _at_most("kv_cache_gib", 1, MEMORY),
    _at_most("weight_bucket_mb", 256, MEMORY),
)


def rehearsed(config: RunConfig, model: Path, services: ServiceConfig) -> tuple[RunConfig, list[Unrehearsed]]:
    """The configuration of a rehearsal, and what of `config` it leaves out.

    `model`: folder of the tiny model. `services`: configuration with tools, judges, workers and, if it is a
    run's, Ray for this machine.
    """
    values: dict[str, tuple[object, str]] = {
        f"train.{one.field}": (one.value(config.train), one.why) for one in TRAIN
    }
    values["train.model"] = str(model), "same architecture and tokenizer, small layers, other weights"
    values |= _services(config, services)
    document = config.model_dump(mode="json")
    before = {field: _get(document, field) for field in values}
    changes = {field: value for field, (value, _) in values.items() if value != before[field]}
    left_out = [Unrehearsed(field, before[field], values[field][1]) for field in changes]
    changes["train.verl"], dropped = verl_section.without(config.train.verl)
    left_out += dropped
    changed = overrides.apply(document, changes)
    redis = changed["queue"].pop("redis_url")
    if "redis_url" in config.queue.model_fields_set:
        left_out.append(Unrehearsed("queue.redis_url", redis, HERE))
    return check(changed, f"the rehearsal of {config.name}"), left_out


def _sequence(train: TrainSettings) -> int:
    """Tokens of the longest sequence of the rehearsal, the least that its micro-batches must hold."""
    return min(train.prompt_tokens, PROMPT_TOKENS) + min(train.response_tokens, RESPONSE_TOKENS)


def _services(config: RunConfig, services: ServiceConfig) -> Iterator[tuple[str, tuple[object, str]]]:
    """Fields of tools, judges and workers, with those of `services`."""
    given = services.model_dump(mode="json")
    for field in ("tools.search", "tools.diffusion", "tools.edit", "judges"):
        yield field, (_get(given, field), SERVICE)
    yield "tools.code.require", (given["tools"]["code"]["require"], "layers that work in any container")
    if rewards_settings.check(services.judges, config.reward):
        yield "reward.formula", ("grounded", "the local judges cannot grade its axes")
    pools = given["workers"]["pools"]
    served = {queue for pool in pools for queue in pool["queues"]}
    others = [queue for pool in config.workers.pools for queue in pool.queues if queue not in served]
    yield "workers.pools", ([*pools, *({"queues": [queue]} for queue in others)], MEMORY)
    if isinstance(services, RunConfig):
        yield "ray", (given["ray"], HERE)


def _get(document: Any, field: str) -> Any:
    for name in field.split("."):
        document = document[name]
    return document
