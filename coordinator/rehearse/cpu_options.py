"""The options of verl that a run on GPUs has and a rehearsal on CPUs has not, each with its reason. Pure.

Invariant: every option that differs because of the device is in the answer, or in `ADDED`. A test compares
both with all shipped configurations.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.rehearse.unrehearsed import Unrehearsed
from policy.settings import TrainSettings
from policy.train.verl_options import hydra_overrides

FLOAT32 = "a CPU computes in float32"
FLASH = "needs flash-attn"
COMPILED = "needs minutes and a C++ compiler"
ENGINE = "vLLM's CPU build has no such mode"
SYNC = "needs NCCL; weights are sent over TCP"
OFFLOAD = "there is no GPU memory to spare"
PROCESSES = "fewer processes on one machine"

_FSDP = "actor_rollout_ref.actor.fsdp_config"
_REF = "actor_rollout_ref.ref.fsdp_config"
_ROLLOUT = "actor_rollout_ref.rollout"
REASONS = {
    "actor_rollout_ref.model.use_remove_padding": FLASH,
    "actor_rollout_ref.model.override_config.attn_implementation": FLASH,
    "actor_rollout_ref.model.enable_gradient_checkpointing": OFFLOAD,
    "actor_rollout_ref.actor.use_torch_compile": COMPILED,
    f"{_FSDP}.use_torch_compile": COMPILED,
    f"{_FSDP}.optimizer_offload": OFFLOAD,
    f"{_FSDP}.mixed_precision.param_dtype": FLOAT32,
    f"{_FSDP}.param_offload": OFFLOAD,
    f"{_REF}.use_torch_compile": COMPILED,
    f"{_REF}.param_offload": OFFLOAD,
    f"{_REF}.mixed_precision.param_dtype": FLOAT32,
    f"{_ROLLOUT}.dtype": FLOAT32,
    f"{_ROLLOUT}.load_format": ENGINE,
    f"{_ROLLOUT}.enforce_eager": COMPILED,
    f"{_ROLLOUT}.free_cache_engine": ENGINE,
    f"{_ROLLOUT}.enable_sleep_mode": ENGINE,
    f"{_ROLLOUT}.enable_chunked_prefill": "vLLM's CPU build cannot with a seed",
    f"{_ROLLOUT}.engine_kwargs.vllm.distributed_executor_backend": PROCESSES,
    f"{_ROLLOUT}.checkpoint_engine.backend": SYNC,
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": PROCESSES,
}
UNKNOWN = "differs on a CPU"
# What policy.cpu adds to verl.
ADDED = (
    "trainer.device",  # train.device
    "actor_rollout_ref.model.external_lib",
    f"{_ROLLOUT}.engine_kwargs.vllm.worker_extension_cls",
    f"{_ROLLOUT}.checkpoint_engine.custom_backend_module",
    f"{_ROLLOUT}.checkpoint_engine.engine_kwargs.tcp.timeout_s",
)


def by_device(train: TrainSettings, rehearsed: TrainSettings) -> list[Unrehearsed]:
    """The options of verl in which a rehearsal (with the section `rehearsed`) differs by its device."""
    gpu = _options(rehearsed.model_copy(update={"device": train.device}))
    cpu = _options(rehearsed)
    names = sorted(name for name in gpu.keys() | cpu.keys() if gpu.get(name) != cpu.get(name))
    return [
        Unrehearsed(name, gpu.get(name, ""), REASONS.get(name, UNKNOWN))
        for name in names
        if name not in ADDED
    ]


def _options(train: TrainSettings) -> dict[str, str]:
    """verl's options by name, without the sign that adds one. The environment of processes is no option."""
    file = [Path("data.parquet")]
    texts = hydra_overrides(train, run=Path("run"), data_train=file, data_test=file)
    pairs = (text.lstrip("+").partition("=") for text in texts)
    return {name: value for name, _, value in pairs if not name.startswith("ray_kwargs.")}
