"""Every option we set must exist in verl's own configuration, and mean there what the run's settings say."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import pytest
from pydantic import ValidationError

from policy.training import TrainSettings, agent_loop_config, environment
from policy.verl_options import hydra_overrides

CPU = {
    "model": "tiny",
    "device": "cpu",
    "batch_size": 8,
    "prompt_tokens": 200,
    "response_tokens": 300,
    "micro_batch_tokens": 8192,
    "tensor_parallel": 1,
    "sequence_parallel": 1,
    "trainer_gpus": 1,
    "rollout_gpus": 1,
    "old_log_prob": "rollout",
}
QWEN3_4B = {"model": "Qwen/Qwen3-4B-Instruct-2507"}
QWEN3_30B = {
    "model": "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "loss": "gspo",
    "batch_size": 16,
    "clip_low": 3e-4,
    "clip_high": 4e-4,
    "aggregation": "seq-mean-token-mean",
    "warmup_steps": 6,
}


def compose(settings: TrainSettings, run: Path):
    """verl's real configuration tree with our overrides; an unknown option raises."""
    from hydra import compose, initialize_config_dir

    files = [run / "train.parquet"]
    overrides = hydra_overrides(settings, run=run, data_train=files, data_test=files)
    config_dir = str(resources.files("verl") / "trainer" / "config")
    # `hydra.*` options are the application's, not the tree's.
    overrides = [item for item in overrides if not item.startswith("hydra.")]
    with initialize_config_dir(config_dir=config_dir, version_base=None):
        return compose("ppo_trainer", overrides=overrides)


@pytest.mark.parametrize("mode", ["separate_async", "colocate_async", "sync"])
def test_every_option_exists_in_verl_on_a_cpu(mode, tmp_path):
    config = compose(TrainSettings(**CPU, mode=mode), tmp_path)
    assert config.trainer.v1.trainer_mode == mode
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    assert config.actor_rollout_ref.rollout.dtype == "float32"
    assert config.algorithm.rollout_correction.bypass_mode is True


def test_grpo_of_the_paper(tmp_path):
    config = compose(TrainSettings(**QWEN3_4B), tmp_path)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert config.algorithm.adv_estimator == "grpo"
    assert (actor.optim.lr, actor.optim.lr_scheduler_type, actor.optim.min_lr_ratio) == (1e-6, "cosine", 0.01)
    assert (actor.optim.lr_warmup_steps, actor.optim.weight_decay, actor.optim.clip_grad) == (5, 0.1, 1.0)
    assert (actor.clip_ratio_c, actor.use_kl_loss, actor.entropy_coeff) == (10.0, False, 0.0)
    assert config.algorithm.use_kl_in_reward is False
    assert (config.data.train_batch_size, rollout.n) == (32, 8)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (8192, 24576)
    assert (actor.loss_agg_mode, actor.policy_loss.loss_mode) == ("token-mean", "vanilla")
    assert (actor.ulysses_sequence_parallel_size, rollout.tensor_model_parallel_size) == (2, 2)
    assert rollout.checkpoint_engine.backend == "nccl"
    assert config.actor_rollout_ref.hybrid_engine is False


def test_gspo_of_the_paper(tmp_path):
    config = compose(TrainSettings(**QWEN3_30B), tmp_path)
    actor = config.actor_rollout_ref.actor
    assert actor.policy_loss.loss_mode == "gspo"
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (3e-4, 4e-4)
    assert (actor.loss_agg_mode, actor.optim.lr_warmup_steps) == ("seq-mean-token-mean", 6)
    assert config.data.train_batch_size == 16


def test_the_actor_takes_verls_own_validation(tmp_path):
    from verl.utils.config import omega_conf_to_dataclass

    config = compose(TrainSettings(**QWEN3_4B), tmp_path)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.validate(8, config.data.train_batch_size, config.actor_rollout_ref.model)


def test_the_seed_reaches_data_order_sampling_and_training(tmp_path):
    config = compose(TrainSettings(**CPU, seed=7), tmp_path)
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    assert (config.data.seed, rollout.seed, actor.data_loader_seed, actor.fsdp_config.seed) == (7, 7, 7, 7)


def test_the_sampler_replaces_groups_below_min_siblings(tmp_path):
    config = compose(TrainSettings(**CPU, min_siblings=3), tmp_path)
    assert config.trainer.v1.sampler.sampler_kwargs.min_siblings == 3


def test_awkward_paths_survive_hydras_grammar(tmp_path):
    run = tmp_path / "it's a=run, {really}"
    config = compose(TrainSettings(**CPU), run)
    assert config.trainer.default_local_dir == str(run / "checkpoints")
    assert config.data.train_files == [str(run / "train.parquet")]


def test_no_secret_of_the_environment_enters_the_options(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMI_REDIS_URL", "redis://:hunter2@host:1/0")
    monkeypatch.setenv("ARK_API_KEY", "hunter2")
    overrides = hydra_overrides(TrainSettings(**CPU), run=tmp_path, data_train=[], data_test=[])
    assert "hunter2" not in " ".join(overrides)
    assert "hunter2" not in str(environment(TrainSettings(**CPU), run=tmp_path))


def test_the_agent_loop_file_is_what_verl_loads(tmp_path):
    from omegaconf import OmegaConf

    path = tmp_path / "agent_loop.yaml"
    path.write_text(agent_loop_config(TrainSettings(**CPU), run=tmp_path, scorer="some.module:Scorer.make"))
    (loop,) = OmegaConf.load(path)
    assert loop.name == "interleaved"
    assert loop.run == str(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"micro_batch_tokens": 100}, "micro_batch_tokens"),
        ({"tensor_parallel": 2}, "tensor_parallel"),
        ({"sequence_parallel": 2}, "sequence_parallel"),
        ({"batch_size": 3, "n": 3, "trainer_gpus": 2}, "batch_size"),
        ({"learning_rate": 1e-6}, "learning_rate"),
        ({"loss": "ppo"}, "loss"),
        ({"min_siblings": 9}, "min_siblings"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change, field):
    with pytest.raises(ValidationError, match=field):
        TrainSettings(**(CPU | change))


def test_settings_load_without_torch_or_verl():
    import subprocess

    code = (
        "import sys, policy.training, policy.verl_options; print({'torch', 'verl', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
