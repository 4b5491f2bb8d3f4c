"""Settings of a GRPO run, and the environment and the agent-loop file of its processes.

`policy.train.verl_options` translates the settings into verl's options.

Invariants:
- Settings that cannot work together are refused here, before anything starts.
- Nothing here imports verl, torch or ray.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from policy.train_sections import (
    CurriculumSettings,
    FilterSettings,
    KlSettings,
    LoraSettings,
    TrackerName,
    secret_names,
)
from workers.process import interpreter
from workers.settings import CONFIG_ENV, LocalPath, Settings
from workers.storage.cache import CACHE_ENV, cache_folder

AGENT = "interleaved"
LOOP = "policy.rollout.agent_loop.InterleavedAgentLoop"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
PAST_METRICS = "metrics.past.jsonl"  # of the steps before a resume
AGENT_CONFIG = "agent_loop.yaml"
RAY_WORKER_ENV = ("RAY_RAYLET_PID", "RAY_JOB_ID")  # set by Ray in each worker process


def half(n: int) -> int:
    """Half of a group of `n`, rounded up, and at least 2."""
    return max(2, (n + 1) // 2)


class PauseSettings(Settings):
    """When a run submits no more groups because a provider is down: while a circuit (`queue.breaker`) is open
    and too many groups are unusable.
    """

    share: float = Field(default=0.5, ge=0, lt=1)
    """Share of the last batch of groups that must be unusable. Below a half a run still progresses."""
    for_s: float = Field(default=60.0, ge=0)
    """Seconds for which the share must stay exceeded, so that a short outage pauses nothing."""
    probe_s: float = Field(default=30.0, gt=0)
    """Shortest time, in seconds, between two groups that are submitted during a pause to test the provider.
    """


def _default_correction(known: dict[str, object]) -> Literal["token"] | None:
    """`token` where samples can be stale and the clipped ratio does not correct for it."""
    stale = known.get("mode") != "sync" and known.get("old_log_prob") == "recompute"
    return "token" if stale else None


class TrainSettings(Settings):
    """One GRPO (or GSPO) run. On a CPU the GPU counts are logical: one per process."""

    model: LocalPath
    """The model that is trained: a folder or a hub id."""
    modality: Literal["text", "vl"] = "text"
    """Whether the model reads text only, or images too (`vl`)."""
    device: Literal["cpu", "cuda"] = "cuda"
    """Where the run trains and generates. `cpu` is for tiny models."""
    mode: Literal["separate_async", "colocate_async", "sync"] = "separate_async"
    """`separate_async`: trains and generates at once, on GPUs of their own. `colocate_async` and `sync`: on
    the same GPUs in turn; `sync` trains on fresh samples only. The default waits least."""
    seed: int = Field(default=1, ge=0, le=2**32 - 1)
    """Seed of the order of prompts, of sampling and of the tools."""

    steps: int | None = Field(default=None, ge=1)
    """Training steps; null: as many as the data has for `epochs`."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the data; with `curriculum`, as many reads as it has prompts. One, as published."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts (groups) of a step. 32 as published for GRPO."""
    n: int = Field(default=8, ge=2)
    """Samples of a group. 8 as published."""
    min_valid: int = Field(default_factory=lambda known: half(known.get("n", 2)), ge=2)
    """Fewest valid samples of a group, at most `n`; a group with fewer is replaced, since the baseline of a
    few samples says little. By default half of `n`, rounded up, and at least 2."""
    system_prompt: bool = True
    """Begin every chat with the system prompt that explains the tags. Off for a model that was trained
    without it."""
    prompt_tokens: int = Field(default=8192, ge=1)
    """Longest prompt, in tokens. As published for the text models."""
    response_tokens: int = Field(default=24576, ge=1)
    """Longest document, in tokens. As published for the text models."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of sampling. At 1 the sampler's log-probabilities are the policy's own."""
    image_max_pixels: int = Field(default=1024 * 1024, ge=56 * 56)
    """Pixels of an input image; larger ones are scaled down. As published."""
    max_input_images: int = Field(default=8, ge=1)
    """Most input images of a prompt; a data file with more in a row is refused."""

    loss: Literal["grpo", "gspo"] = "grpo"
    """The policy loss: the clipped ratio of each token (`grpo`) or of whole sequences (`gspo`)."""
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"] = "token-mean"
    """How the losses of tokens are averaged; the names are verl's (`loss_agg_mode`)."""
    clip_low: float = Field(default=0.2, gt=0)
    """The ratio is clipped below 1 - `clip_low`."""
    clip_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above 1 + `clip_high`."""
    clip_c: float = Field(default=10.0, gt=1)
    """Bound of the ratio for negative advantages (dual clip). As published."""
    entropy: float = Field(default=0.0, ge=0)
    """Weight of the entropy bonus. None, as published."""
    old_log_prob: Literal["rollout", "recompute"] = "recompute"
    """Where the old policy's log-probabilities come from. `rollout`: from the sampler, which saves a forward
    pass; the clipped ratio then corrects for staleness. `recompute`: from the trainer."""
    rollout_is: Literal["token"] | None = Field(default_factory=lambda known: _default_correction(known))
    """How samples of older weights are corrected when the old policy is recomputed. `token` multiplies the
    loss of each token by pi_old / pi_sampler, truncated (verl's `algorithm.rollout_correction`). By default
    `token` wherever samples can be stale; an asynchronous run without any correction is refused. verl's level
    `sequence` is not offered: its product over thousands of tokens vanishes or explodes."""
    rollout_is_threshold: float = Field(default=2.0, ge=1)
    """Where the weights of `rollout_is` are truncated."""
    rollout_rs: Literal["seq_mean_k1"] | None = None
    """Which documents are left out of the loss, besides `rollout_is`: with `seq_mean_k1`, those with a
    geometric mean of pi_old / pi_sampler outside `rollout_rs_threshold`. For `gspo`."""
    rollout_rs_threshold: float = Field(default=1.001, gt=1)
    """Largest mean ratio of `rollout_rs`; the smallest is its reciprocal. verl's preset."""

    lr: float = Field(default=1e-6, gt=0)
    """Learning rate. As published."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up. As published."""
    min_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    """Last learning rate of `cosine`, as a share of `lr`. As published."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps in which the learning rate rises to `lr`."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Weight decay of AdamW. As published."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient. As published."""

    warmup_batches: float = Field(default=1.0, ge=0)
    """Batches of groups that are submitted before the first step's own."""
    admission: Literal["adaptive", "fixed"] = "adaptive"
    """Whether the number of groups in flight adapts after the start, or stays. Adaptive fills idle generation
    slots without making samples older than needed."""
    max_staleness: int = Field(default=4, ge=1)
    """Most versions of the weights from the submission of a sample to its training, both included: with 4 it
    is at most 3 updates old. Older samples are dropped."""
    in_order: bool = False
    """Train on groups in the order of their submission. It makes a run more repeatable, and the slowest group
    delays it."""
    pause: PauseSettings = PauseSettings()
    """When admission pauses because a provider is down."""
    rollout_timeout_s: float = Field(default=1800.0, gt=0)
    """Seconds that a rollout may take for its text, and again for its tools and judges after that; more than
    `tools.code.budget_s`. A text that takes longer is cut and scored as it stands, or masked if the generator
    stood still for long; a rollout with tools or judges that take longer is masked. Half an hour holds the
    longest document."""
    rollout_processes: int = Field(default=8, ge=1)
    """Processes that run the rollouts. A group goes to the one with the fewest groups in flight."""
    poll_s: float = Field(default=0.2, gt=0)
    """Seconds between two polls of the trainer for finished groups."""
    weight_sync_timeout_s: float = Field(default=300.0, gt=0)
    """Seconds that sending the weights to the generators may take, on a CPU."""

    trainer_nodes: int = Field(default=1, ge=1)
    """Nodes that train."""
    trainer_gpus: int = Field(default=8, ge=1)
    """GPUs of each node that trains."""
    rollout_nodes: int = Field(default=1, ge=1)
    """Nodes that generate, with `separate_async`."""
    rollout_gpus: int = Field(default=8, ge=1)
    """GPUs of each node that generates, with `separate_async`."""
    tensor_parallel: int = Field(default=2, ge=1)
    """GPUs of one generator; divides the GPUs that generate. As published."""
    sequence_parallel: int = Field(default=2, ge=1)
    """GPUs that share a sequence in training (Ulysses); divides the GPUs that train. As published."""
    micro_batch_tokens: int = Field(default=32_768, ge=1)
    """Tokens of one forward pass on a GPU. Times `sequence_parallel` it must hold one sequence."""
    rollout_seqs: int = Field(default=256, ge=1)
    """Sequences that a generator writes at once (vLLM's `max_num_seqs`)."""
    rollout_batched_tokens: int = Field(default=8192, ge=1)
    """Tokens of one generator step (vLLM's `max_num_batched_tokens`). On a CPU it must hold one sequence,
    because prompts are not chunked there."""
    gpu_memory: float = Field(default=0.8, gt=0, lt=1)
    """Share of a GPU's memory that vLLM may take."""
    kv_cache_gib: int = Field(default=1, ge=1)
    """KV cache of vLLM on a CPU, in GiB."""
    weight_bucket_mb: int = Field(default=2048, ge=1)
    """MiB of weights that are sent to the generators at once."""
    save_every: int = Field(default=20, ge=0)
    """Steps between two checkpoints, which is the most that a run that dies loses; 0 saves none."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Newest checkpoints that are kept, besides the best one. The two newest are whole, so that a run can
    resume from them; of the others only the weights are kept."""
    evaluate_every: int = Field(default=0, ge=0)
    """Steps between two evaluations of the test files, which run beside training at lower priority; 0: never.
    Others are at the start of the run and after its last step ([training.md](training.md#evaluation))."""
    evaluate_prompts: int | None = Field(default=None, ge=1)
    """Prompts of an evaluation, the first of the test files; null: all."""
    evaluate_timeout_s: float = Field(default=3600.0, gt=0)
    """Seconds that a document of an evaluation may take for its text, and again for its tools and judges;
    more than `tools.code.budget_s`. A later one is masked, and so is one with a request that waits longer
    than `queue.wait_s`. After its last step a run waits as long for its evaluations."""
    offload_params: bool = False
    """Keep the weights that are trained in the memory of the machine while a GPU does not need them."""
    offload_optimizer: bool = True
    """Keep the state of the optimiser in the memory of the machine between updates. With `offload_params` it
    makes room on GPUs that also generate, and costs a copy in each step. Neither has an effect on a CPU."""

    lora: LoraSettings = LoraSettings()
    """Adapters instead of all weights."""
    kl: KlSettings = KlSettings()
    """A penalty on the distance to the initial model."""
    filter_groups: FilterSettings = FilterSettings()
    """Whether groups without a signal are replaced."""
    curriculum: CurriculumSettings = CurriculumSettings()
    """Whether prompts with a signal are read more often."""
    trackers: tuple[TrackerName, ...] = ()
    """Where the metrics of each step are sent, besides `metrics.jsonl`: `wandb`, `tensorboard`, `mlflow`,
    `swanlab`. Keys and addresses are in the environment; without them nothing leaves the machine
    ([training.md](training.md#trackers))."""
    pictures_every: int = Field(default=10, ge=0)
    """Steps between two pictures of four documents, which `wandb` and `tensorboard` get; 0 sends none."""
    verl: dict[str, JsonValue] = Field(default_factory=dict)
    """Any options of verl, nested as in its own files. They are merged last and replace those of this
    section; `llmi train CONFIG --dry-run` shows and checks the result ([training.md](training.md))."""

    @field_validator("verl")
    @classmethod
    def _without_secrets(cls, verl: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if found := secret_names(verl):
            raise ValueError(
                f"{', '.join(found)}: this would be printed and saved; leave it out, and set it in the "
                "environment of llmi train, on a cluster that of its nodes"
            )
        return verl

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.min_valid > self.n:
            raise ValueError(f"min_valid {self.min_valid} is more than the n = {self.n} of a group")
        if self.curriculum.enable and self.epochs == 1:
            raise ValueError(
                "curriculum has no effect in the first pass over the data; set epochs of at least 2"
            )
        if self.micro_batch_tokens * self.sequence_parallel < self.prompt_tokens + self.response_tokens:
            raise ValueError(
                "micro_batch_tokens times sequence_parallel must hold one sequence "
                f"(prompt_tokens + response_tokens = {self.prompt_tokens + self.response_tokens})"
            )
        if self.trainer_gpus * self.trainer_nodes % self.sequence_parallel:
            raise ValueError("trainer_gpus times trainer_nodes must be a multiple of sequence_parallel")
        pool = self.rollout_gpus if self.mode == "separate_async" else self.trainer_gpus
        if pool % self.tensor_parallel:
            raise ValueError(
                f"tensor_parallel {self.tensor_parallel} does not divide the {pool} GPUs that generate"
            )
        ranks = self.trainer_gpus * self.trainer_nodes // self.sequence_parallel
        if self.batch_size * self.n % ranks:
            raise ValueError(f"batch_size times n must be a multiple of the {ranks} data-parallel ranks")
        if self.megatron and (self.device == "cpu" or self.sequence_parallel > 1):
            raise ValueError(
                "verl.model_engine: megatron needs device: cuda and sequence_parallel: 1 (its own is "
                "verl.actor_rollout_ref.actor.megatron.context_parallel_size)"
            )
        if self.device == "cpu" and (self.tensor_parallel > 1 or self.sequence_parallel > 1):
            raise ValueError("tensor_parallel and sequence_parallel must be 1 on a CPU")
        if self.device == "cpu" and self.rollout_batched_tokens < self.prompt_tokens + self.response_tokens:
            raise ValueError(
                "rollout_batched_tokens must hold one sequence on a CPU (prompt_tokens + response_tokens = "
                f"{self.prompt_tokens + self.response_tokens}), because prompts are not chunked there"
            )
        return self

    @property
    def adapts(self) -> bool:
        """Whether prompts are submitted as `policy.admission.window` decides."""
        return self.admission == "adaptive" and self.mode != "sync"

    @property
    def megatron(self) -> bool:
        """Whether Megatron trains, instead of FSDP."""
        return self.verl.get("model_engine") == "megatron"

    @property
    def rollout_slots(self) -> int:
        """Sequences that all generators write at once."""
        gpus = (
            self.rollout_gpus * self.rollout_nodes
            if self.mode == "separate_async"
            else self.trainer_gpus * self.trainer_nodes
        )
        return self.rollout_seqs * max(1, gpus // self.tensor_parallel)

    @property
    def evaluated_at_once(self) -> int:
        """Documents of an evaluation that a rollout process runs at once: an eighth of its generation slots.

        All at once would fill the queues of tools, and wait in vLLM: before new weights verl 0.9.1 waits up
        to a minute until no request waits there for its first token.
        """
        return max(1, self.rollout_slots // 8 // self.rollout_processes)

    @property
    def gpus(self) -> int:
        """GPUs (on a CPU: logical ones) of the trainer and the generators together."""
        trainer = self.trainer_gpus * self.trainer_nodes
        return trainer + (self.rollout_gpus * self.rollout_nodes if self.mode == "separate_async" else 0)


def checkpoint(run: Path, step: int) -> Path:
    """The folder of verl's checkpoint after `step`."""
    return run / CHECKPOINTS / f"global_step_{step}"


def agent_loop_config(train: TrainSettings, *, run: Path, scorer: str, loop: str = LOOP) -> str:
    """The text of a run's agent-loop file, `<run>/agent_loop.yaml` (JSON, which is YAML).

    `scorer`: factory of the `policy.scoring.Scorer`, as `package.module:Class.method`; it is called without
    arguments once per rollout process. `loop`: dotted name of the class that runs a rollout.
    """
    entry = {
        "name": AGENT,
        "_target_": loop,
        "run": str(run.absolute()),
        "scorer": scorer,
        "seed": train.seed,
        "rollout_timeout_s": train.rollout_timeout_s,
        "evaluate_timeout_s": train.evaluate_timeout_s,
        "evaluated_at_once": train.evaluated_at_once,
    }
    return json.dumps([entry], indent=1)


def environment(train: TrainSettings, *, run: Path) -> dict[str, str]:
    """Environment of the trainer, and through Ray's runtime environment of every process of the run."""
    env = {
        CACHE_ENV: str(cache_folder()),
        CONFIG_ENV: str((run / "config.json").absolute()),
        "VERL_FILE_LOGGER_PATH": str((run / METRICS).absolute()),
        # verl 0.9.1 passes flush= to logging calls at INFO, which crashes separate_async.
        "VERL_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "PYTHONHASHSEED": str(train.seed),
        **interpreter.VARIABLES,
    }
    if train.device == "cpu":
        env |= {
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_MODULES": "policy.cpu",
            # Without a GPU, Ray hides logical GPUs from actors that request none.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "VLLM_CPU_KVCACHE_SPACE": str(train.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            # One process less: the engine's process runs the worker. vLLM's CPU build needs OMP_NUM_THREADS.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # Else vLLM compiles small functions at first use, which takes half a minute and a C++ compiler.
            "TORCHDYNAMO_DISABLE": "1",
        }
    return env
