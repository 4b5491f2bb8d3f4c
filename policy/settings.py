"""Settings of a GRPO run, and the environment and agent-loop file of its processes.

Invariants: settings that cannot work together are refused here, before anything starts; nothing here imports
verl, torch or ray. What the settings mean to verl is in `policy.train.verl_options`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from workers.process import interpreter
from workers.settings import CONFIG_ENV, LocalPath, Settings
from workers.storage.cache import CACHE_ENV, cache_folder

AGENT = "interleaved"
LOOP = "policy.rollout.agent_loop.InterleavedAgentLoop"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
PAST_METRICS = "metrics.past.jsonl"  # of the steps before a resume
AGENT_CONFIG = "agent_loop.yaml"
RAY_WORKER_ENV = ("RAY_RAYLET_PID", "RAY_JOB_ID")  # what Ray tells each worker, before it imports Ray


def half(n: int) -> int:
    """Half of a group of `n`, rounded up, and at least 2."""
    return max(2, (n + 1) // 2)


class PauseSettings(Settings):
    """When a run asks for no more rollouts because a provider is down. Times in seconds.

    It pauses when more than `share` of the last batch of groups were unusable for `for_s` on end while a
    breaker (`queue.breaker`) is open; meanwhile one group is asked for every `probe_s` at most.
    """

    share: float = Field(default=0.5, ge=0, lt=1)
    for_s: float = Field(default=60.0, ge=0)
    probe_s: float = Field(default=30.0, gt=0)


def _default_correction(known: dict[str, object]) -> Literal["token"] | None:
    """Correct where samples can be stale and the clipped ratio does not see it."""
    stale = known.get("mode") != "sync" and known.get("old_log_prob") == "recompute"
    return "token" if stale else None


class TrainSettings(Settings):
    """One GRPO (or GSPO) run. Lengths in tokens, times in seconds, batch sizes in prompts.

    `mode`: `separate_async` trains and generates on GPUs of their own, the others on the same ones.
    `old_log_prob`: take the sampler's log-probabilities as the old policy's (`rollout`), which saves a
    forward pass and lets the clipped ratio correct for staleness, or compute them anew (`recompute`).
    `rollout_is`: how a recomputed old policy is corrected for the older weights that wrote a sample. `token`
    multiplies the loss of each token by pi_old / pi_sampler, at most `rollout_is_threshold` (truncated
    importance sampling, verl's `algorithm.rollout_correction`). It is the default wherever samples can be
    stale; an asynchronous run without any correction is refused. verl's other level, `sequence`, is the
    product over all tokens, which vanishes or explodes over thousands of them.
    `system_prompt`: lead every chat with `policy.grammar.prompts.SYSTEM`; a model that was trained without
    goes without. `min_valid`: a group with fewer samples that may vote is replaced as a whole, because the
    baseline of a few says little (default: half of `n`, at least 2). `in_order`: train on groups in the order
    they were asked for, not as they end; it makes a run more repeatable, and stragglers hold it up.
    `warmup_batches`: submitted before the first step's own batch. `admission`: let the number of groups under
    way adapt from there (see `policy.admission.admission`), or keep it. `save_every`: steps between
    checkpoints, which is what a run that dies loses at most; 0 saves none. On a CPU the GPU counts are
    logical: one per process.
    """

    model: LocalPath
    modality: Literal["text", "vl"] = "text"
    device: Literal["cpu", "cuda"] = "cuda"
    mode: Literal["separate_async", "colocate_async", "sync"] = "separate_async"
    seed: int = Field(default=1, ge=0, le=2**32 - 1)

    steps: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=32, ge=1)
    n: int = Field(default=8, ge=2)
    min_valid: int = Field(default_factory=lambda known: half(known.get("n", 2)), ge=2)
    system_prompt: bool = True
    prompt_tokens: int = Field(default=8192, ge=1)
    response_tokens: int = Field(default=24576, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    image_max_pixels: int = Field(default=1024 * 1024, ge=56 * 56)
    max_input_images: int = Field(default=8, ge=1)

    loss: Literal["grpo", "gspo"] = "grpo"
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"] = "token-mean"
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.2, gt=0)
    clip_c: float = Field(default=10.0, gt=1)
    entropy: float = Field(default=0.0, ge=0)
    old_log_prob: Literal["rollout", "recompute"] = "recompute"
    rollout_is: Literal["token"] | None = Field(default_factory=lambda known: _default_correction(known))
    rollout_is_threshold: float = Field(default=2.0, ge=1)

    lr: float = Field(default=1e-6, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    min_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    warmup_steps: int = Field(default=5, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)

    warmup_batches: float = Field(default=1.0, ge=0)
    admission: Literal["adaptive", "fixed"] = "adaptive"
    max_staleness: int = Field(default=4, ge=1)
    in_order: bool = False
    pause: PauseSettings = PauseSettings()
    rollout_timeout_s: float = Field(default=1800.0, gt=0)
    rollout_processes: int = Field(default=8, ge=1)
    poll_s: float = Field(default=0.2, gt=0)
    weight_sync_timeout_s: float = Field(default=300.0, gt=0)

    trainer_nodes: int = Field(default=1, ge=1)
    trainer_gpus: int = Field(default=8, ge=1)
    rollout_nodes: int = Field(default=1, ge=1)
    rollout_gpus: int = Field(default=8, ge=1)
    tensor_parallel: int = Field(default=2, ge=1)
    sequence_parallel: int = Field(default=2, ge=1)
    micro_batch_tokens: int = Field(default=32_768, ge=1)
    rollout_seqs: int = Field(default=256, ge=1)
    rollout_batched_tokens: int = Field(default=8192, ge=1)
    gpu_memory: float = Field(default=0.8, gt=0, lt=1)
    kv_cache_gib: int = Field(default=1, ge=1)
    weight_bucket_mb: int = Field(default=2048, ge=1)
    save_every: int = Field(default=20, ge=0)

    @model_validator(mode="after")
    def _corrected(self) -> TrainSettings:
        """Refuse what would train on stale samples as if they were fresh (DESIGN, invariant 3)."""
        if self.old_log_prob == "rollout" and self.rollout_is:
            raise ValueError(
                "rollout_is has no effect with old_log_prob: rollout, whose clipped ratio is against the "
                "sampler already; leave rollout_is out, or set old_log_prob: recompute"
            )
        if self.mode == "sync":
            return self
        if self.old_log_prob == "recompute" and not self.rollout_is:
            raise ValueError(
                f"{self.mode} trains on samples that older weights wrote, and rollout_is: null leaves them "
                "uncorrected (every ratio would be 1); set rollout_is: token, old_log_prob: rollout, or "
                "mode: sync"
            )
        if self.old_log_prob == "rollout" and self.loss == "gspo":
            raise ValueError(
                "gspo clips the ratio of whole sequences within a few 1e-4, so that against the sampler's "
                "log-probabilities nearly every stale sample would be clipped away; set old_log_prob: "
                "recompute"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.min_valid > self.n:
            raise ValueError(f"min_valid {self.min_valid} is more than the n = {self.n} of a group")
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
        if self.device == "cpu" and (self.tensor_parallel > 1 or self.sequence_parallel > 1):
            raise ValueError("tensor_parallel and sequence_parallel must be 1 on a CPU")
        if self.device == "cpu" and self.rollout_batched_tokens < self.prompt_tokens + self.response_tokens:
            raise ValueError(
                "rollout_batched_tokens must hold one sequence on a CPU (prompt_tokens + response_tokens = "
                f"{self.prompt_tokens + self.response_tokens}), because prompts are computed whole there"
            )
        return self

    @property
    def adapts(self) -> bool:
        """Whether prompts are submitted as `policy.admission.admission` decides."""
        return self.admission == "adaptive" and self.mode != "sync"

    @property
    def rollout_slots(self) -> int:
        """Sequences that all engines write at once."""
        gpus = (
            self.rollout_gpus * self.rollout_nodes
            if self.mode == "separate_async"
            else self.trainer_gpus * self.trainer_nodes
        )
        return self.rollout_seqs * max(1, gpus // self.tensor_parallel)

    @property
    def gpus(self) -> int:
        """GPUs (on a CPU: logical ones) that the trainer and the rollout engines take together."""
        trainer = self.trainer_gpus * self.trainer_nodes
        return trainer + (self.rollout_gpus * self.rollout_nodes if self.mode == "separate_async" else 0)


def checkpoint(run: Path, step: int) -> Path:
    """Where verl keeps what it saved after a step."""
    return run / CHECKPOINTS / f"global_step_{step}"


def agent_loop_config(train: TrainSettings, *, run: Path, scorer: str, loop: str = LOOP) -> str:
    """The agent-loop file of a run (YAML; JSON is YAML), to be written to `<run>/agent_loop.yaml`.

    `scorer` names the factory of the `policy.scoring.Scorer`, as `package.module:Class.method`; it is called
    without arguments once per rollout process. `loop`: the class that runs a rollout.
    """
    entry = {
        "name": AGENT,
        "_target_": loop,
        "run": str(run.absolute()),
        "scorer": scorer,
        "seed": train.seed,
        "rollout_timeout_s": train.rollout_timeout_s,
    }
    return json.dumps([entry], indent=1)


def environment(train: TrainSettings, *, run: Path) -> dict[str, str]:
    """Environment of the trainer and, through Ray's runtime environment, of every process of the run."""
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
            # With no GPU, Ray would hide logical ones from actors that asked for none.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "VLLM_CPU_KVCACHE_SPACE": str(train.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            # Lets the engine's process do the worker's work; vLLM's CPU build only asks that OMP be set
            # beforehand.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM compiles small functions at first use: half a minute, and a C++ compiler nobody promised.
            "TORCHDYNAMO_DISABLE": "1",
        }
    return env
