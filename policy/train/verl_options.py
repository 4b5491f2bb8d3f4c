"""Translate `TrainSettings` to Hydra overrides for verl's V1 trainer (verl 0.9.1).

Invariants:
- only this module, `cpu_options` and `policy.train.options` know the names of verl's options;
- `train.verl` is merged last;
- no secret is put into an override, because verl prints them all;
- only extension points of verl are used here.
"""

from __future__ import annotations

import math
from pathlib import Path

from policy.settings import AGENT, AGENT_CONFIG, TrainSettings, checkpoint, environment
from policy.train.cpu_options import cpu_options
from policy.train.gradient.refusals import MEASURED, estimator
from policy.train.options.engine import engine_options
from policy.train.options.libraries import libraries
from policy.train.options.passthrough import merged
from policy.train.options.updates import update_options


def hydra_overrides(
    train: TrainSettings,
    *,
    run: Path,
    data_train: list[Path],
    data_test: list[Path],
    resume_from: int = 0,
) -> list[str]:
    """The arguments of `python -m policy.train.main_ppo` for this run.

    `resume_from`: the step of the checkpoint to start from (0: none).
    """
    options: dict[str, object] = {}
    options |= _algorithm(train)
    options |= _data(train, data_train, data_test)
    options |= _model(train)
    options |= _actor(train)
    options |= engine_options(train)
    options |= update_options(train)
    options |= _rollout(train, run)
    options |= _trainer(train, run, resume_from)
    options |= _sampler(train, run)
    options |= cpu_options(train) if train.device == "cpu" else {}
    for name, value in environment(train, run=run).items():
        options[f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}"] = value
    return merged(options, train.verl)


def _algorithm(train: TrainSettings) -> dict[str, object]:
    return {
        "algorithm.adv_estimator": estimator(train.aggregation),
        "algorithm.rollout_correction.bypass_mode": train.old_log_prob == "rollout",
        "algorithm.rollout_correction.rollout_is": train.rollout_is,
        "algorithm.rollout_correction.rollout_is_threshold": train.rollout_is_threshold,
        "algorithm.rollout_correction.rollout_rs": train.rollout_rs,
        "algorithm.rollout_correction.rollout_rs_threshold": train.rollout_rs_threshold,
    }


def _data(train: TrainSettings, data_train: list[Path], data_test: list[Path]) -> dict[str, object]:
    return {
        "data.train_files": [str(path.absolute()) for path in data_train],
        "data.val_files": [str(path.absolute()) for path in data_test],
        "data.custom_cls.path": "pkg://policy.data.verl_dataset",
        "data.custom_cls.name": "InterleavedDataset",
        "data.val_max_samples": train.evaluate_prompts or -1,
        "data.train_batch_size": train.batch_size,
        "data.max_prompt_length": train.prompt_tokens,
        "data.max_response_length": train.response_tokens,
        "data.shuffle": True,
        "data.seed": train.seed,
        # Rows are small and decoding an image is fast: worker processes would cost more than they save.
        "data.dataloader_num_workers": 0,
        "+data.system_prompt": train.system_prompt,
        "+data.image_max_pixels": train.image_max_pixels,
        "+data.curriculum.enable": train.curriculum.enable,
        "+data.curriculum.floor": train.curriculum.floor,
        "+data.curriculum.half_life": train.curriculum.half_life,
    }


def _model(train: TrainSettings) -> dict[str, object]:
    cuda = train.device == "cuda"
    return {
        "actor_rollout_ref.model.path": train.model,
        "actor_rollout_ref.model.external_lib": libraries(train),
        "actor_rollout_ref.model.use_remove_padding": cuda,
        "actor_rollout_ref.model.enable_gradient_checkpointing": cuda,
    }


def _actor(train: TrainSettings) -> dict[str, object]:
    actor = "actor_rollout_ref.actor"
    return {
        f"{actor}.ppo_mini_batch_size": train.batch_size,
        f"{actor}.ppo_epochs": 1,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": train.micro_batch_tokens,
        f"{actor}.entropy_coeff": train.entropy,
        f"{actor}.policy_loss.loss_mode": _loss(train),
        f"{actor}.loss_agg_mode": train.aggregation,
        f"{actor}.clip_ratio": train.clip_low,
        f"{actor}.clip_ratio_low": train.clip_low,
        f"{actor}.clip_ratio_high": train.clip_high,
        f"{actor}.clip_ratio_c": train.clip_c,
        f"{actor}.data_loader_seed": train.seed,
        f"{actor}.optim.lr": train.lr,
        f"{actor}.optim.lr_warmup_steps": train.warmup_steps,
        f"{actor}.optim.weight_decay": train.weight_decay,
        f"{actor}.optim.clip_grad": train.grad_clip,
        f"{actor}.use_torch_compile": train.device == "cuda",
    }


def _loss(train: TrainSettings) -> str:
    loss = "vanilla" if train.loss == "grpo" else "gspo"
    return f"{MEASURED}{loss}" if train.old_log_prob == "rollout" else loss


def _rollout(train: TrainSettings, run: Path) -> dict[str, object]:
    rollout = "actor_rollout_ref.rollout"
    options: dict[str, object] = {
        f"{rollout}.name": "vllm",
        f"{rollout}.n": train.n,
        f"{rollout}.seed": train.seed,
        f"{rollout}.temperature": train.temperature,
        f"{rollout}.top_p": 1.0,
        f"{rollout}.top_k": -1,
        f"{rollout}.calculate_log_probs": True,
        f"{rollout}.tensor_model_parallel_size": train.tensor_parallel,
        f"{rollout}.max_model_len": train.prompt_tokens + train.response_tokens,
        f"{rollout}.max_num_seqs": train.rollout_seqs,
        f"{rollout}.max_num_batched_tokens": train.rollout_batched_tokens,
        f"{rollout}.gpu_memory_utilization": train.gpu_memory,
        f"{rollout}.enable_prefix_caching": True,
        f"{rollout}.agent.num_workers": train.rollout_processes,
        f"{rollout}.agent.default_agent_loop": AGENT,
        f"+{rollout}.agent.agent_loop_manager_class": "policy.train.dispatch.LeastLoadedManager",
        f"{rollout}.agent.agent_loop_config_path": str((run / AGENT_CONFIG).absolute()),
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes": train.weight_bucket_mb,
        # The agent loop scores its own documents; verl's reward workers would be idle.
        "reward.num_workers": 0,
    }
    if train.evaluate_every:
        options[f"{rollout}.scheduling_policy"] = "priority"  # of vLLM; training comes before evaluations
    if train.modality == "vl":
        options[f"+{rollout}.limit_images"] = train.max_input_images
    return options


def _trainer(train: TrainSettings, run: Path, resume_from: int) -> dict[str, object]:
    mode = f"{'windowed' if train.adapts else 'resumable'}_{train.mode}"
    options: dict[str, object] = {
        "trainer.use_v1": True,
        "trainer.device": train.device,
        "trainer.v1.trainer_mode": mode,
        # verl's base class reads the section that is named like the mode.
        f"+trainer.v1.{mode}": f"${{trainer.v1.{train.mode}}}",
        "trainer.nnodes": train.trainer_nodes,
        "trainer.n_gpus_per_node": train.trainer_gpus,
        "trainer.total_epochs": train.epochs,
        "trainer.total_training_steps": train.steps,
        "trainer.logger": ["file"],
        "+trainer.trackers": list(train.trackers),
        "+trainer.pictures_every": train.pictures_every,
        "trainer.project_name": "llmi",
        "trainer.experiment_name": run.name,
        "trainer.default_local_dir": str(checkpoint(run, 0).parent.absolute()),
        "trainer.checkpoint_callback_class": "policy.train.checkpoints.CheckpointRecorder",
        "trainer.save_freq": train.save_every or -1,
        "+trainer.keep_checkpoints": train.keep_checkpoints,
        "+trainer.evaluate_every": train.evaluate_every,
        "+trainer.evaluate_timeout_s": train.evaluate_timeout_s,
        "trainer.resume_mode": "resume_path" if resume_from else "disable",
        "trainer.resume_from_path": str(checkpoint(run, resume_from).absolute()) if resume_from else None,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        # Replacing single groups needs single prompts.
        "data.gen_batch_size": 1,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1 if train.device == "cpu" else 8,
        "hydra.run.dir": str((run / "hydra").absolute()),
        "hydra.output_subdir": None,
    }
    if train.mode == "colocate_async":
        options["trainer.v1.colocate_async.num_warmup_batches"] = train.warmup_batches
    if train.mode == "separate_async":
        options |= {
            "actor_rollout_ref.hybrid_engine": False,
            "actor_rollout_ref.rollout.nnodes": train.rollout_nodes,
            "actor_rollout_ref.rollout.n_gpus_per_node": train.rollout_gpus,
            "actor_rollout_ref.rollout.checkpoint_engine.backend": "nccl",
            "trainer.v1.separate_async.parameter_sync_step": 1,
            "trainer.v1.separate_async.num_warmup_batches": train.warmup_batches,
        }
    return options


def _sampler(train: TrainSettings, run: Path) -> dict[str, object]:
    sampler = "trainer.v1.sampler"
    sync = train.mode == "sync"
    options: dict[str, object] = {
        f"{sampler}.max_off_policy_threshold": train.max_staleness,
        f"{sampler}.max_off_policy_strategy": "drop",
        f"{sampler}.sync_refill_failed_groups": sync,
        f"{sampler}.custom_sampler.path": "pkg://policy.train.sampler",
        f"{sampler}.custom_sampler.name": "GroupSampler" if sync else "GroupSamplerAsync",
        f"+{sampler}.sampler_kwargs.run": str(run.absolute()),
        f"+{sampler}.sampler_kwargs.n": train.n,
        f"+{sampler}.sampler_kwargs.min_valid": train.min_valid,
        f"+{sampler}.sampler_kwargs.poll_s": train.poll_s,
        f"+{sampler}.sampler_kwargs.in_order": train.in_order,
        f"+{sampler}.sampler_kwargs.saves": train.save_every > 0,
        f"+{sampler}.sampler_kwargs.max_no_signal": (
            math.ceil(train.filter_groups.max_batches * train.batch_size)
            if train.filter_groups.enable
            else None
        ),
        # Stop rather than generate groups that are all dropped: unless a provider is down, the cause does not
        # pass by itself. All groups in flight may become stale at once, though.
        f"+{sampler}.sampler_kwargs.max_wasted": max(4, 2 * train.max_staleness) * train.batch_size,
        # A rollout has its time-out for its prompt, for its text, and for its tools and judges, and a minute
        # to save the text; another minute is for the rest.
        f"+{sampler}.sampler_kwargs.stall_s": 3 * train.rollout_timeout_s + 120,
        f"+{sampler}.sampler_kwargs.pause.share": train.pause.share,
        f"+{sampler}.sampler_kwargs.pause.for_s": train.pause.for_s,
        f"+{sampler}.sampler_kwargs.pause.probe_s": train.pause.probe_s,
        f"+{sampler}.sampler_kwargs.pause.recent": train.batch_size,
    }
    if train.adapts:
        window = f"+{sampler}.sampler_kwargs.window"
        # As many as verl's own trainer has open while it trains, besides those that are ready.
        first = math.floor(max(1.0, train.warmup_batches) * train.batch_size)
        options |= {
            f"{window}.batch": train.batch_size,
            f"{window}.max_staleness": train.max_staleness,
            f"{window}.slots": train.rollout_slots,
            f"{window}.first": first,
            f"{window}.steps": train.steps,
        }
    return options
