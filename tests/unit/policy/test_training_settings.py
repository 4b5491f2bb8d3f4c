"""Every option that is set exists in verl's own configuration, and means the same there."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import pytest
from cpu_train import CPU_TRAIN
from pydantic import ValidationError

from coordinator.config.files import read, shipped
from coordinator.config.settings import load
from policy.settings import TrainSettings, agent_loop_config, environment
from policy.train.verl_options import hydra_overrides

CPU = {
    **CPU_TRAIN,
    "batch_size": 8,
    "old_log_prob": "rollout",
}

# The shipped files that train; the others are evaluations.
RUNS = [name for name in shipped() if "train" in read(name)[0]]


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
    assert config.trainer.v1.trainer_mode == f"{'resumable' if mode == 'sync' else 'windowed'}_{mode}"
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"
    assert config.actor_rollout_ref.rollout.dtype == "float32"
    assert config.actor_rollout_ref.rollout.enable_chunked_prefill is False
    assert config.algorithm.rollout_correction.bypass_mode is True


@pytest.mark.parametrize("mode", ["separate_async", "sync"])
def test_verl_finds_the_classes_that_the_options_name(mode, tmp_path):
    """Regression: a moved module left two of these paths behind."""
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.import_utils import load_class_from_fqn, load_extern_object

    import policy.train.trainer  # noqa: F401 - registers the trainers

    config = compose(TrainSettings(**CPU, mode=mode), tmp_path)
    for custom in (config.data.custom_cls, config.trainer.v1.sampler.custom_sampler):
        assert load_extern_object(custom.path, custom.name).__name__ == custom.name
    assert load_class_from_fqn(config.trainer.checkpoint_callback_class)
    assert get_trainer_cls(config.trainer.v1.trainer_mode)


def test_the_sampler_gets_the_bounds_of_the_window(tmp_path):
    settings = TrainSettings(**CPU, steps=5, warmup_batches=1.5, max_staleness=3, rollout_seqs=64)
    window = compose(settings, tmp_path).trainer.v1.sampler.sampler_kwargs.window
    assert dict(window) == {"batch": 8, "max_staleness": 3, "slots": 64, "first": 12, "steps": 5}


def test_the_sampler_is_notified_when_to_pause(tmp_path):
    settings = TrainSettings(**CPU, pause={"share": 0.25, "for_s": 90})
    pause = compose(settings, tmp_path).trainer.v1.sampler.sampler_kwargs.pause
    assert dict(pause) == {"share": 0.25, "for_s": 90.0, "probe_s": 30.0, "recent": 8}


def test_with_a_fixed_admission_verl_submits(tmp_path):
    config = compose(TrainSettings(**CPU, admission="fixed"), tmp_path)
    assert config.trainer.v1.trainer_mode == "resumable_separate_async"
    assert "window" not in config.trainer.v1.sampler.sampler_kwargs


@pytest.mark.parametrize("name", RUNS)
def test_every_shipped_configuration_takes_verls_own_validation(name, tmp_path):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config
    from verl.utils.import_utils import load_class_from_fqn

    train = load(name).train
    config = compose(train, tmp_path)
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert not need_critic(config)
    assert not need_reference_policy(config)
    # A field that verl's own class lacks raises.
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert (rollout.prompt_length, rollout.response_length) == (train.prompt_tokens, train.response_tokens)
    assert load_class_from_fqn(rollout.agent.agent_loop_manager_class).__name__ == "LeastLoadedManager"
    assert rollout.limit_images == (train.max_input_images if train.modality == "vl" else None)


@pytest.mark.parametrize("name", ["qwen3_4b_grpo", "qwen3_30b_a3b_gspo", "qwen2_5_vl_7b_grpo"])
def test_settings_that_all_published_runs_share(name, tmp_path):
    config = compose(load(name).train, tmp_path)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (actor.optim.lr, actor.optim.lr_scheduler_type, actor.optim.min_lr_ratio) == (1e-6, "cosine", 0.01)
    assert (actor.optim.weight_decay, actor.optim.clip_grad) == (0.1, 1.0)
    assert (actor.clip_ratio_c, actor.use_kl_loss, actor.entropy_coeff) == (10.0, False, 0.0)
    assert config.algorithm.use_kl_in_reward is False
    assert rollout.n == 8
    assert (actor.ulysses_sequence_parallel_size, rollout.tensor_model_parallel_size) == (2, 2)
    assert rollout.checkpoint_engine.backend == "nccl"
    assert config.actor_rollout_ref.hybrid_engine is False


@pytest.mark.parametrize(
    ("name", "loss", "aggregation", "advantage", "warmup", "batch", "prompt", "response"),
    [
        ("qwen3_4b_grpo", "vanilla", "token-mean", "grpo", 5, 32, 8192, 24576),
        ("qwen3_30b_a3b_gspo", "gspo", "seq-mean-token-mean", "grpo_over_valid", 6, 16, 8192, 24576),
        ("qwen2_5_vl_7b_grpo", "vanilla", "token-mean", "grpo", 4, 32, 16384, 16384),
    ],
)
def test_the_published_values_of_each_run(
    name, loss, aggregation, advantage, warmup, batch, prompt, response, tmp_path
):
    config = compose(load(name).train, tmp_path)
    actor, data = config.actor_rollout_ref.actor, config.data
    assert config.algorithm.adv_estimator == advantage
    assert (actor.policy_loss.loss_mode, actor.loss_agg_mode) == (loss, aggregation)
    assert (actor.optim.lr_warmup_steps, data.train_batch_size) == (warmup, batch)
    assert (data.max_prompt_length, data.max_response_length) == (prompt, response)


@pytest.mark.parametrize("name", ["qwen3_4b_grpo", "qwen3_30b_a3b_gspo", "qwen2_5_vl_7b_grpo"])
def test_every_cluster_run_corrects_for_stale_samples(name, tmp_path):
    correction = compose(load(name).train, tmp_path).algorithm.rollout_correction
    assert (correction.rollout_is, correction.rollout_is_threshold) == ("token", 2.0)
    assert correction.bypass_mode is False


RECOMPUTE = CPU | {"old_log_prob": "recompute"}


@pytest.mark.parametrize("mode", ["separate_async", "colocate_async"])
@pytest.mark.parametrize("loss", ["grpo", "gspo"])
def test_an_asynchronous_run_is_corrected_by_default(mode, loss, tmp_path):
    correction = compose(
        TrainSettings(**RECOMPUTE, mode=mode, loss=loss), tmp_path
    ).algorithm.rollout_correction
    assert (correction.rollout_is, correction.rollout_is_threshold) == ("token", 2.0)


def test_a_synchronous_run_is_left_as_published(tmp_path):
    correction = compose(TrainSettings(**RECOMPUTE, mode="sync"), tmp_path).algorithm.rollout_correction
    assert correction.rollout_is is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"old_log_prob": "recompute", "rollout_is": "sequence"}, "rollout_is"),
        ({"old_log_prob": "recompute", "rollout_is_threshold": 0.5}, "rollout_is_threshold"),
        ({"old_log_prob": "recompute", "rollout_rs_threshold": 1.0}, "rollout_rs_threshold"),
    ],
)
def test_a_correction_out_of_range_is_refused(change, field):
    with pytest.raises(ValidationError, match=field):
        TrainSettings(**(CPU | change))


def test_a_stale_tokens_weight_is_its_ratio_to_the_sampler_and_at_most_the_threshold(tmp_path):
    """Worked by hand: ratios e^0.5, e^-1 and e^2, cut at 2; a masked sample weighs nothing."""
    import torch
    from verl import DataProto
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch

    batch = DataProto.from_single_dict(
        {
            "old_log_probs": torch.tensor([[-1.0, -2.0, -1.0], [-1.0, -1.0, -1.0]]),
            "rollout_log_probs": torch.tensor([[-1.5, -1.0, -3.0], [-9.0, -9.0, -9.0]]),
            "response_mask": torch.tensor([[1, 1, 1], [0, 0, 0]]),
        }
    )
    config = compose(TrainSettings(**RECOMPUTE), tmp_path).algorithm.rollout_correction
    corrected, metrics = compute_rollout_correction_and_add_to_batch(batch, config)
    weights = corrected.batch["rollout_is_weights"]
    expected = torch.tensor([[1.6487, 0.3679, 2.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(weights, expected, atol=1e-4, rtol=0)
    assert metrics["rollout_corr/rollout_is_mean"] == pytest.approx(1.3389, abs=1e-4)


def test_the_vision_run_is_given_both_kinds_of_prompts():
    data = load("qwen2_5_vl_7b_grpo").data
    assert [Path(name).name for name in data.train] == ["train.parquet", "train_mm.parquet"]
    assert [Path(name).name for name in data.test] == ["test.parquet", "test_mm.parquet"]


def test_gspo_clips_as_published(tmp_path):
    actor = compose(load("qwen3_30b_a3b_gspo").train, tmp_path).actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (3e-4, 4e-4)


def test_the_vision_model_gets_images_of_the_published_size(tmp_path):
    assert compose(load("qwen2_5_vl_7b_grpo").train, tmp_path).data.image_max_pixels == 1024 * 1024


def test_the_seed_reaches_data_order_sampling_and_training(tmp_path):
    config = compose(TrainSettings(**CPU, seed=7), tmp_path)
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    assert (config.data.seed, rollout.seed, actor.data_loader_seed, actor.fsdp_config.seed) == (7, 7, 7, 7)


def test_the_dataset_gets_the_settings_of_the_curriculum(tmp_path):
    chosen = {"enable": True, "floor": 0.5, "half_life": 2.0}
    assert compose(TrainSettings(**CPU, epochs=2, curriculum=chosen), tmp_path).data.curriculum == chosen


def test_the_sampler_replaces_groups_below_min_valid(tmp_path):
    config = compose(TrainSettings(**CPU, min_valid=3), tmp_path)
    assert config.trainer.v1.sampler.sampler_kwargs.min_valid == 3


@pytest.mark.parametrize(("n", "least"), [(2, 2), (3, 2), (4, 2), (5, 3), (8, 4), (16, 8)])
def test_half_of_a_group_and_at_least_two_must_be_valid(n, least):
    assert TrainSettings(**CPU, n=n).min_valid == least


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


@pytest.mark.parametrize(("slots", "processes", "documents"), [(256, 8, 4), (256, 1, 32), (8, 4, 1)])
def test_the_documents_of_an_evaluation_take_an_eighth_of_the_slots(slots, processes, documents):
    train = TrainSettings(**CPU | {"rollout_seqs": slots, "rollout_processes": processes})
    assert train.evaluated_at_once == documents


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"micro_batch_tokens": 100}, "micro_batch_tokens"),
        ({"rollout_batched_tokens": 499}, "rollout_batched_tokens"),
        ({"tensor_parallel": 2}, "tensor_parallel"),
        ({"sequence_parallel": 2}, "sequence_parallel"),
        ({"batch_size": 3, "n": 3, "trainer_gpus": 2}, "batch_size"),
        ({"learning_rate": 1e-6}, "learning_rate"),
        ({"loss": "ppo"}, "loss"),
        ({"min_valid": 9}, "min_valid"),
        ({"curriculum": {"enable": True}}, "epochs"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change, field):
    with pytest.raises(ValidationError, match=field):
        TrainSettings(**(CPU | change))


def test_settings_load_without_torch_or_verl():
    import subprocess

    code = (
        "import sys, policy.settings, policy.train.verl_options; "
        "print({'torch', 'verl', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("step", "mode"), [(0, "disable"), (7, "resume_path")])
def test_a_resumed_run_begins_from_its_checkpoint(step, mode, tmp_path):
    settings = TrainSettings(**CPU)
    overrides = hydra_overrides(settings, run=tmp_path, data_train=[], data_test=[], resume_from=step)
    received = dict(item.split("=", 1) for item in overrides)
    assert received["trainer.resume_mode"] == f"'{mode}'"
    where = f"'{tmp_path / 'checkpoints' / 'global_step_7'}'" if step else "null"
    assert received["trainer.resume_from_path"] == where
