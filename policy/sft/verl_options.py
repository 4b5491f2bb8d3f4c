"""Translate the settings to Hydra overrides for verl's SFT trainer (verl 0.9.1).

Invariants: `sft.verl` is merged last; no secret is put into an override.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policy.settings import TrainSettings, checkpoint
from policy.sft.plan import Plan
from policy.sft.settings import EXAMPLES, SftSettings
from policy.train.options.passthrough import leaves, merged
from policy.train.options.verl_config import compose, misfits
from workers.errors import ConfigError

CONFIG_NAME = "sft_trainer_engine"
TEMPLATE = "train.model to a folder with that tokenizer and chat template, which llmi sft and rollouts read"
# Options that settings or other parts of the training also read.
SETTINGS = {
    "checkpoint.save_contents": "nothing, because llmi export and --resume need all of it",
    "data.apply_chat_template_kwargs": "train.verl.data.apply_chat_template_kwargs, which rollouts read",
    "data.custom_cls": "nothing, because the class makes the tokens of a rollout",
    "data.max_length": "sft.max_tokens",
    "data.max_token_len_per_gpu": "train.micro_batch_tokens",
    "data.train_batch_size": "sft.batch_size",
    "data.train_files": "sft.source",
    "data.train_max_samples": "sft.top",
    "data.val_files": "nothing, because llmi sft does not validate; llmi evaluate takes RUN@STEP",
    "model.custom_chat_template": TEMPLATE,
    "model.external_lib": "train.device",
    "model.path": "train.model",
    "model.tokenizer_path": TEMPLATE,
    "optim.lr": "sft.lr",
    "trainer.default_local_dir": "--dir",
    "trainer.device": "train.device",
    "trainer.logger": "nothing, because the progress is read from metrics.jsonl",
    "trainer.max_ckpt_to_keep": "train.keep_checkpoints",
    "trainer.n_gpus_per_node": "train.trainer_gpus",
    "trainer.nnodes": "train.trainer_nodes",
    "trainer.resume_from_path": "--resume",
    "trainer.resume_mode": "--resume",
    "trainer.save_freq": "sft.save_every",
    "trainer.test_freq": "nothing, because llmi sft does not validate; llmi evaluate takes RUN@STEP",
    "trainer.total_epochs": "sft.epochs",
    "trainer.total_training_steps": "sft.steps",
}
OTHER_PROMPTS = ("actor_rollout_ref.model.custom_chat_template", "actor_rollout_ref.model.tokenizer_path")


def template_arguments(train: TrainSettings) -> dict[str, Any]:
    """The arguments of the chat template with which the model's rollouts render prompts."""
    data = train.verl.get("data")
    found = data.get("apply_chat_template_kwargs") if isinstance(data, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def longest(train: TrainSettings, sft: SftSettings) -> int:
    """The most tokens of an example."""
    return sft.max_tokens or train.prompt_tokens + train.response_tokens


def reserved(sft: SftSettings) -> Iterator[str]:
    """A problem for each option of `sft.verl` that is set elsewhere."""
    for name, _ in leaves(sft.verl):
        for option, instead in SETTINGS.items():
            if name == option or name.startswith(f"{option}.") or option.startswith(f"{name}."):
                yield f"sft.verl.{name}: has no effect or would break the training; set {instead}"


def unread(train: TrainSettings) -> Iterator[str]:
    """A problem for each option of `train.verl` that changes the prompts of rollouts, but not those here."""
    for name, _ in leaves(train.verl):
        if name in OTHER_PROMPTS:
            yield (
                f"train.verl.{name}: llmi sft does not read it, and would train other prompts; set {TEMPLATE}"
            )


def overrides(
    train: TrainSettings, sft: SftSettings, plan: Plan, run: Path, *, resume: bool = False
) -> list[str]:
    """The arguments of `python -m policy.sft.main`."""
    options = {
        **_data(train, sft, run),
        **_model(train),
        **_engine(train),
        **_optimiser(train, sft),
        **_trainer(train, sft, plan, run, resume),
    }
    return merged(options, sft.verl)


def _data(train: TrainSettings, sft: SftSettings, run: Path) -> dict[str, object]:
    template = template_arguments(train).items()
    return {
        **{f"+data.apply_chat_template_kwargs.{name}": value for name, value in template},
        "data.train_files": [str((run / EXAMPLES).absolute())],
        "data.custom_cls.path": "pkg://policy.sft.dataset",
        "data.custom_cls.name": "ExampleDataset",
        "data.train_batch_size": sft.batch_size,
        "data.use_dynamic_bsz": True,
        "data.max_token_len_per_gpu": train.micro_batch_tokens,
        "data.max_length": longest(train, sft),
        "data.num_workers": 0,  # the tokens are in memory
    }


def _model(train: TrainSettings) -> dict[str, object]:
    cuda = train.device == "cuda"
    options: dict[str, object] = {
        "model.path": train.model,
        "model.use_remove_padding": cuda,
        "model.enable_gradient_checkpointing": cuda,
    }
    if not cuda:
        options["+model.override_config.attn_implementation"] = "sdpa"
    if train.lora.rank:
        targets = train.lora.targets
        options |= {
            "model.lora_rank": train.lora.rank,
            "model.lora_alpha": train.lora.alpha,
            "model.target_modules": targets if isinstance(targets, str) else list(targets),
        }
    return options


def _engine(train: TrainSettings) -> dict[str, object]:
    cuda = train.device == "cuda"
    options: dict[str, object] = {
        "engine.strategy": "fsdp2",
        "engine.ulysses_sequence_parallel_size": train.sequence_parallel,
        "engine.seed": train.seed,
        "engine.use_torch_compile": cuda,
        "engine.param_offload": cuda and train.offload_params,
        "engine.optimizer_offload": cuda and train.offload_optimizer,
    }
    return options if cuda else {**options, "+engine.mixed_precision.param_dtype": "fp32"}


def _optimiser(train: TrainSettings, sft: SftSettings) -> dict[str, object]:
    return {
        "optim.lr": sft.lr,
        "optim.lr_scheduler_type": train.schedule,
        "optim.min_lr_ratio": train.min_lr_ratio,
        "optim.lr_warmup_steps": train.warmup_steps,
        "optim.weight_decay": train.weight_decay,
        "optim.clip_grad": train.grad_clip,
    }


def _trainer(
    train: TrainSettings, sft: SftSettings, plan: Plan, run: Path, resume: bool
) -> dict[str, object]:
    return {
        "trainer.device": train.device,
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": train.trainer_gpus,
        "trainer.seed": train.seed,
        "trainer.total_epochs": plan.epochs,
        "trainer.total_training_steps": plan.steps,
        "trainer.logger": ["file"],
        "trainer.project_name": "llmi",
        "trainer.experiment_name": run.name,
        "trainer.default_local_dir": str(checkpoint(run, 0).parent.absolute()),
        "trainer.save_freq": sft.save_every or -1,
        "trainer.test_freq": -1,
        "trainer.max_ckpt_to_keep": train.keep_checkpoints,
        "trainer.resume_mode": "auto" if resume else "disable",
        "hydra.run.dir": str((run / "hydra").absolute()),
        "hydra.output_subdir": None,
    }


def problems(train: TrainSettings, sft: SftSettings, options: list[str]) -> Iterator[str]:
    """What verl's configuration refuses in these options, and what would have no effect."""
    found = list(reserved(sft))
    yield from found
    if found:
        return
    chosen = dict(leaves(sft.verl))
    if chosen:
        kept = [line for line in options if line.partition("=")[0].lstrip("+") not in chosen]
        yield from misfits(chosen, compose(kept, CONFIG_NAME), "sft.verl")
    try:
        compose(options, CONFIG_NAME)
    except ConfigError as error:
        yield str(error)
