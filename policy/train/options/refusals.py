"""Options of verl that would have no effect here, or break a run, each with what to set instead (verl 0.9.1).

Found by reading what verl's V1 trainer, its agent loops and `policy.train.sampler` read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policy.train.options.passthrough import leaves

# Options that settings of this project also reach, which other parts of a run read.
SETTINGS = {
    "actor_rollout_ref.model.path": "train.model",
    "actor_rollout_ref.rollout.n": "train.n",
    "actor_rollout_ref.rollout.temperature": "train.temperature",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": "train.tensor_parallel",
    "actor_rollout_ref.rollout.max_model_len": "train.prompt_tokens and train.response_tokens",
    "actor_rollout_ref.rollout.prompt_length": "train.prompt_tokens",
    "actor_rollout_ref.rollout.response_length": "train.response_tokens",
    "actor_rollout_ref.rollout.max_num_seqs": "train.rollout_seqs",
    "actor_rollout_ref.rollout.nnodes": "train.rollout_nodes",
    "actor_rollout_ref.rollout.n_gpus_per_node": "train.rollout_gpus",
    "actor_rollout_ref.rollout.agent": "train.rollout_processes",
    "actor_rollout_ref.hybrid_engine": "train.mode",
    "algorithm.filter_groups": "train.filter_groups",
    "data.train_files": "data.train",
    "data.val_files": "data.test",
    "data.val_max_samples": "train.evaluate_prompts",
    "data.train_batch_size": "train.batch_size",
    "data.max_prompt_length": "train.prompt_tokens",
    "data.max_response_length": "train.response_tokens",
    "trainer.default_local_dir": "--dir",
    "trainer.device": "train.device",
    "trainer.logger": "train.trackers",
    "trainer.max_actor_ckpt_to_keep": "train.keep_checkpoints",
    "trainer.n_gpus_per_node": "train.trainer_gpus",
    "trainer.nnodes": "train.trainer_nodes",
    "trainer.resume_from_path": "--resume",
    "trainer.resume_mode": "--resume",
    "trainer.save_freq": "train.save_every",
    "trainer.test_freq": "train.evaluate_every",
    "trainer.total_epochs": "train.epochs",
    "trainer.total_training_steps": "train.steps",
    "trainer.v1.colocate_async.num_warmup_batches": "train.warmup_batches",
    "trainer.v1.sampler": "train.max_staleness, train.min_valid and train.filter_groups",
    "trainer.v1.separate_async.num_warmup_batches": "train.warmup_batches",
    "trainer.v1.trainer_mode": "train.mode",
    "trainer.val_before_train": "train.evaluate_every",
}
# Options of verl's own dataset class.
ROW_KEYS = (
    "data.custom_cls",
    "data.filter_overlong_prompts",
    "data.function_tool_path",
    "data.image_key",
    "data.prompt_key",
    "data.return_raw_chat",
    "data.tool_config_path",
    "data.truncation",
)
# Options that nothing reads here.
UNREAD = {
    "actor_rollout_ref.rollout.multi_turn": "a document is one turn; tools are set in tools",
    "custom_reward_function": "rewards come from reward.formula",
    **dict.fromkeys(ROW_KEYS, "rows are read by the dataset class of this project"),
    "data.gen_batch_size": "prompts are submitted one at a time",
    **dict.fromkeys(
        ("reward", "reward_model", "data.reward_fn_key"),
        "rewards come from reward.formula and the judges; overlong shaping is a formula of your own",
    ),
    "actor_rollout_ref.rollout.val_kwargs.do_sample": "verl reads temperature, top_p, top_k and n",
    "data.val_batch_size": "an evaluation is submitted as a whole",
    "data.validation_shuffle": "an evaluation is submitted as a whole",
    "trainer.val_only": "a run trains; evaluate a checkpoint with `llmi evaluate`",
    "algorithm.use_pf_ppo": "GRPO does not read it",
    "skip": "the sampler submits prompts, and verl's skipping of rollouts does not see them",
    "trainer.v1.separate_async.hybrid_rollout": "the GPUs that train do not generate",
}
# Options that a run needs as they are.
FIXED = {
    "actor_rollout_ref.rollout.calculate_log_probs": "stale samples are corrected with them",
    "actor_rollout_ref.rollout.scheduling_policy": "training comes before evaluations (train.evaluate_every)",
    "actor_rollout_ref.actor.checkpoint.async_save": "the ledger records checkpoints that are on the disk",
    "actor_rollout_ref.actor.use_dynamic_bsz": "train.micro_batch_tokens bounds a forward pass",
    "data.dataloader_num_workers": "the dataset counts the visits of a prompt in its own process",
    "trainer.checkpoint_callback_class": "it records checkpoints in the ledger",
    "trainer.use_v1": "the sampler is that of the V1 trainer",
    "trainer.v1.separate_async.parameter_sync_step": "the sampler counts one batch a step",
}
ENGINES = ("dp", "megatron")


def unread_problems(verl: Mapping[str, object]) -> Iterator[str]:
    """A problem for each value of `train.verl` that is set elsewhere, is read by nothing, or breaks a run."""
    for name, value in leaves(verl):
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            above = ".".join(parts[:end])
            if above in SETTINGS:
                yield f"train.verl.{name}: set {SETTINGS[above]} instead, which other parts of a run read too"
            elif above in UNREAD:
                yield f"train.verl.{name}: has no effect here: {UNREAD[above]}; leave it out"
            elif above in FIXED:
                yield f"train.verl.{name}: a run needs it as it is: {FIXED[above]}; leave it out"
        if name == "model_engine" and value not in ENGINES:
            yield f"train.verl.{name}: {value!r} is not supported; valid: {', '.join(ENGINES)}"
