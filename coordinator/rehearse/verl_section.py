"""Which options of `train.verl` a rehearsal keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.rehearse.cpu_options import REASONS
from coordinator.rehearse.unrehearsed import Unrehearsed
from policy.train.options.passthrough import leaves

GPUS = "one process trains and one generates"
MEGATRON = "Megatron needs GPUs; FSDP trains here"
SIZE = "sized for a CPU"

# By the last part of the name; those of `REASONS` are left out too. Not `backend`, in which other options
# end as well: `_ANYWHERE` has that of the checkpoint engine.
_LAST = {
    **{last: why for name, why in REASONS.items() if (last := name.rpartition(".")[2]) != "backend"},
    **dict.fromkeys(("ulysses_sequence_parallel_size", "tensor_model_parallel_size", "fsdp_size"), GPUS),
    **dict.fromkeys(("data_parallel_size", "expert_parallel_size", "pipeline_model_parallel_size"), GPUS),
    **dict.fromkeys(
        ("dtype", "model_dtype", "param_dtype", "reduce_dtype", "buffer_dtype"), "a CPU computes in float32"
    ),
    **dict.fromkeys(
        ("param_offload", "grad_offload", "optimizer_offload"), "there is no GPU memory to spare"
    ),
    **dict.fromkeys(("use_fused_kernels", "quantization", "cudagraph_capture_sizes"), "CUDA only"),
    **dict.fromkeys(("gpu_memory_utilization", "max_num_batched_tokens", "ppo_mini_batch_size"), SIZE),
    **dict.fromkeys(("ppo_max_token_len_per_gpu", "log_prob_max_token_len_per_gpu"), SIZE),
}
_ANYWHERE = {"model_engine": MEGATRON, "megatron": MEGATRON, "checkpoint_engine": "weights are sent over TCP"}


def without(verl: Mapping[str, Any]) -> tuple[dict[str, Any], list[Unrehearsed]]:
    """`train.verl` without what a CPU cannot, and the options left out."""
    # FSDP reads `train.lora` in place of `model.lora`.
    anywhere = _ANYWHERE | ({"lora": MEGATRON} if verl.get("model_engine") == "megatron" else {})
    reasons = {name: (value, why) for name, value in leaves(verl) if (why := _reason(name, anywhere))}
    left_out = [Unrehearsed(f"train.verl.{name}", value, why) for name, (value, why) in reasons.items()]
    return _kept(verl, set(reasons)), left_out


def _reason(name: str, anywhere: Mapping[str, str]) -> str:
    """Why the option is left out; empty when it is kept."""
    parts = name.split(".")
    return next((anywhere[part] for part in parts if part in anywhere), _LAST.get(parts[-1], ""))


def _kept(verl: Mapping[str, Any], left_out: set[str], above: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in verl.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            if below := _kept(value, left_out, name):
                kept[key] = below
        elif name not in left_out:
            kept[key] = value
    return kept
