"""The options of verl that differ on a CPU: float32, gloo, no sleep mode, weights over TCP (see
`policy.cpu`).
"""

from __future__ import annotations

from policy.settings import TrainSettings


def cpu_options(train: TrainSettings) -> dict[str, object]:
    """Options by name, to override those of a GPU run."""
    rollout = "actor_rollout_ref.rollout"
    options: dict[str, object] = {
        "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
        "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype": "fp32",
        "+actor_rollout_ref.ref.fsdp_config.mixed_precision.param_dtype": "fp32",
        f"{rollout}.dtype": "float32",
        f"{rollout}.load_format": "auto",
        f"{rollout}.enforce_eager": True,
        f"{rollout}.free_cache_engine": False,
        # vLLM 0.27.1 crashes on a CPU when it computes a part of a prompt of a request with a seed: it
        # rewinds the random numbers, which torch's CPU generator cannot. Remove this when
        # tests/unit/policy/cpu/test_verl_cpu.py::test_a_cpu_generator_takes_no_step_back fails.
        f"{rollout}.enable_chunked_prefill": False,
        f"+{rollout}.enable_sleep_mode": False,
        # Saves a process: the worker runs in the engine's.
        f"+{rollout}.engine_kwargs.vllm.distributed_executor_backend": "uni",
        f"+{rollout}.engine_kwargs.vllm.worker_extension_cls": "policy.cpu.vllm_worker.CpuWorkerExtension",
    }
    if train.kl.form != "none" and not train.lora.rank:
        # verl offloads a reference model with pinned memory, which torch only has with an accelerator. As a
        # model that could be trained it is not offloaded; its optimiser is never used.
        ref = "actor_rollout_ref.ref"
        options |= {
            f"{ref}.fsdp_config.forward_only": False,
            f"+{ref}.optim": "${actor_rollout_ref.actor.optim}",
        }
    if train.mode == "separate_async":
        options |= {
            f"{rollout}.checkpoint_engine.backend": "tcp",
            f"{rollout}.checkpoint_engine.custom_backend_module": "policy.cpu.weights",
            f"+{rollout}.checkpoint_engine.engine_kwargs.tcp.timeout_s": train.weight_sync_timeout_s,
        }
    return options
