"""A rehearsal changes what a CPU cannot do, says so, and keeps everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.config import files
from coordinator.config.settings import RunConfig, check, load
from coordinator.rehearse.changes import BATCH, GROUP, STEPS, rehearsed
from coordinator.rehearse.cpu_options import ADDED, REASONS, UNKNOWN, by_device

MODEL = Path("/tiny")
TRAINING = [name for name in files.shipped() if "train" in files.read(name)[0]]


@pytest.fixture(scope="module")
def services() -> RunConfig:
    return load("demo")


def leaves(value: Any, field: str = "") -> dict[str, Any]:
    """The values of a document by dotted field."""
    if not isinstance(value, dict) or not value:
        return {field: value}
    found: dict[str, Any] = {}
    for name, one in value.items():
        found |= leaves(one, f"{field}.{name}" if field else name)
    return found


def changed_fields(before: RunConfig, after: RunConfig) -> set[str]:
    old, new = leaves(before.model_dump(mode="json")), leaves(after.model_dump(mode="json"))
    return {field for field in old.keys() | new.keys() if old.get(field) != new.get(field)}


@pytest.mark.parametrize("name", TRAINING)
def test_every_changed_field_is_reported(name: str, services: RunConfig) -> None:
    config = load(name)
    after, left_out = rehearsed(config, MODEL, services)
    reported = {one.option for one in left_out}
    for field in changed_fields(config, after):
        assert any(field == one or field.startswith(f"{one}.") for one in reported), field


@pytest.mark.parametrize("name", TRAINING)
def test_only_what_differs_is_reported(name: str, services: RunConfig) -> None:
    config = load(name)
    after, left_out = rehearsed(config, MODEL, services)
    changed = changed_fields(config, after)
    for one in left_out:
        assert any(field == one.option or field.startswith(f"{one.option}.") for field in changed), one


@pytest.mark.parametrize("name", TRAINING)
def test_loss_sampling_and_data_are_as_configured(name: str, services: RunConfig) -> None:
    config = load(name)
    after, _ = rehearsed(config, MODEL, services)
    kept = ("loss", "aggregation", "mode", "old_log_prob", "rollout_is", "lr", "schedule", "temperature")
    assert [getattr(after.train, field) for field in kept] == [getattr(config.train, field) for field in kept]
    assert (after.data, after.reward, after.blobs) == (config.data, config.reward, config.blobs)


@pytest.mark.parametrize("name", TRAINING)
def test_two_small_steps_on_a_cpu_with_one_checkpoint(name: str, services: RunConfig) -> None:
    train = rehearsed(load(name), MODEL, services)[0].train
    assert (train.device, train.model, train.steps, train.save_every) == ("cpu", "/tiny", STEPS, STEPS)
    assert train.batch_size <= BATCH
    assert train.n <= GROUP
    assert train.gpus <= 2


@pytest.mark.parametrize("name", TRAINING)
def test_every_option_that_a_cpu_changes_has_a_reason(name: str, services: RunConfig) -> None:
    config = load(name)
    differing = by_device(config.train, rehearsed(config, MODEL, services)[0].train)
    assert [str(one) for one in differing if one.why == UNKNOWN] == []


def test_every_reason_is_in_use(services: RunConfig) -> None:
    config = load("qwen3_4b_grpo", {"train.offload_params": True})
    named = {one.option for one in by_device(config.train, rehearsed(config, MODEL, services)[0].train)}
    assert named == set(REASONS)
    assert not named & set(ADDED)


def test_a_cpu_configuration_loses_no_option_to_its_device(services: RunConfig) -> None:
    config = load("demo")
    assert by_device(config.train, rehearsed(config, MODEL, services)[0].train) == []


def test_a_named_redis_is_not_used(services: RunConfig) -> None:
    config = load("qwen3_4b_grpo", {"queue.redis_url": "redis://cluster:6379/0", "queue.wait_s": 5.0})
    after, left_out = rehearsed(config, MODEL, services)
    assert not after.external_redis
    assert after.queue.wait_s == 5.0
    assert "queue.redis_url=redis://cluster:6379/0" in {str(one).partition(" ")[0] for one in left_out}


def test_small_values_stay(services: RunConfig) -> None:
    given = {"train.batch_size": 1, "train.n": 2, "train.prompt_tokens": 64, "train.response_tokens": 32}
    train = rehearsed(load("demo", given), MODEL, services)[0].train
    assert (train.batch_size, train.n, train.prompt_tokens, train.response_tokens) == (1, 2, 64, 32)


def test_queues_that_the_local_pools_lack_are_served(services: RunConfig) -> None:
    raw = yaml.safe_load(yaml.safe_dump(load("qwen3_4b_grpo").model_dump(mode="json")))
    raw["workers"]["pools"].append({"queues": ["evaluate"]})
    after, _ = rehearsed(check(raw, "test"), MODEL, services)
    assert after.workers.pools[-1].queues == ("evaluate",)
    assert after.workers.pools[:-1] == services.workers.pools


def test_options_of_verl_are_kept_but_for_those_that_need_gpus(services: RunConfig) -> None:
    given = {
        "actor_rollout_ref": {
            "actor": {"policy_loss": {"loss_mode": "cispo"}, "fsdp_config": {"model_dtype": "bfloat16"}},
            "rollout": {"data_parallel_size": 2},
        },
    }
    after, left_out = rehearsed(load("qwen3_4b_grpo", {"train.verl": given}), MODEL, services)
    assert after.train.verl == {"actor_rollout_ref": {"actor": {"policy_loss": {"loss_mode": "cispo"}}}}
    named = {one.option.removeprefix("train.verl.actor_rollout_ref.") for one in left_out}
    assert {"actor.fsdp_config.model_dtype", "rollout.data_parallel_size"} <= named


def test_only_the_backend_that_sends_weights_is_left_out(services: RunConfig) -> None:
    kept = {
        "trace": {"backend": "mlflow"},
        "engine_kwargs": {"vllm": {"structured_outputs": {"backend": "xgrammar"}}},
    }
    given = {"actor_rollout_ref": {"rollout": {**kept, "checkpoint_engine": {"backend": "nixl"}}}}
    after, left_out = rehearsed(load("qwen3_4b_grpo", {"train.verl": given}), MODEL, services)
    assert after.train.verl == {"actor_rollout_ref": {"rollout": kept}}
    (why,) = [one.why for one in left_out if one.option.endswith(".backend")]
    assert why == "weights are sent over TCP"


def test_fsdp_takes_the_place_of_megatron(services: RunConfig) -> None:
    given = {
        "model_engine": "megatron",
        "actor_rollout_ref": {
            "actor": {"megatron": {"expert_model_parallel_size": 8}},
            "model": {"lora": {"rank": 8, "merge": True}},
        },
    }
    config = load("qwen3_30b_a3b_gspo", {"train.verl": given, "train.sequence_parallel": 1})
    after, left_out = rehearsed(config, MODEL, services)
    assert after.train.verl == {}
    assert not after.train.megatron
    assert {"train.verl.model_engine=megatron"} <= {str(one).partition(" ")[0] for one in left_out}
