"""`train.verl`: what it reaches in verl's configuration, and what is refused before a run."""

from __future__ import annotations

import re

import pytest

from coordinator.check import options
from coordinator.config.settings import load
from policy.rollout.rollout import SAVE_S
from policy.settings import TrainSettings
from policy.train.options.hydra import quote
from policy.train.options.verl_config import compose
from workers.errors import ConfigError

RUN = "qwen3_4b_grpo"


@pytest.fixture
def config(tmp_path):
    """`config(verl, **train)`: verl's configuration of a shipped run with these settings."""

    def make(verl: dict | None = None, name: str = RUN, **train: object):
        over = {"train.verl": verl or {}, **{f"train.{key}": value for key, value in train.items()}}
        return compose(options.resolved(load(name, over), tmp_path))

    return make


@pytest.fixture
def refused(config):
    """`refused(verl, **train)`: the message of the refusal."""

    def make(verl: dict | None = None, **train: object) -> str:
        with pytest.raises(ConfigError) as caught:
            config(verl, **train)
        return str(caught.value)

    return make


def test_an_option_replaces_that_of_the_settings_and_of_verl(config):
    actor = {"clip_ratio_high": 0.28, "policy_loss": {"loss_mode": "cispo"}, "freeze_vision_tower": True}
    made = config({"actor_rollout_ref": {"actor": actor}}, clip_high=0.25).actor_rollout_ref.actor
    assert (made.clip_ratio_high, made.policy_loss.loss_mode, made.freeze_vision_tower) == (
        0.28,
        "cispo",
        True,
    )
    assert made.clip_ratio_low == 0.2


def test_a_list_replaces_a_list_and_an_option_may_be_only_in_verls_classes(config):
    verl = {
        "actor_rollout_ref": {"rollout": {"limit_images": 4, "cudagraph_capture_sizes": [1, 2]}},
        "global_profiler": {"steps": [1, 2]},
    }
    made = config(verl)
    assert made.global_profiler.steps == [1, 2]
    assert made.actor_rollout_ref.rollout.limit_images == 4
    assert made.actor_rollout_ref.rollout.cudagraph_capture_sizes == [1, 2]


def test_a_mapping_that_verl_leaves_open_takes_any_key(config):
    verl = {
        "actor_rollout_ref": {"rollout": {"engine_kwargs": {"vllm": {"max_logprobs": 5}}}},
        "data": {"apply_chat_template_kwargs": {"enable_thinking": False}},
    }
    made = config(verl)
    assert made.actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs == 5
    assert made.data.apply_chat_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("verl", "words"),
    [
        ({"trianer": {"x": 1}}, "train.verl.trianer: verl .* no such option; did you mean trainer?"),
        ({"trainer": {"loger": ["file"]}}, "train.verl.trainer.loger: .* did you mean trainer.logger?"),
        ({"actor_rollout_ref": {"actor": {"policy_loss": {"loss_mod": "x"}}}}, "policy_loss.loss_mode?"),
        ({"actor_rollout_ref": {"actor": {"policy_loss": 3}}}, "policy_loss: is a section"),
        ({"actor_rollout_ref": {"actor": None}}, "train.verl.actor_rollout_ref.actor: is a section"),
        ({"algorithm": {"rollout_correction": None}}, "rollout_correction: is a section"),
        ({"actor_rollout_ref": {"actor": {"loss_agg_mode": None}}}, "loss_agg_mode: .* valid string"),
        ({"actor_rollout_ref": {"actor": {"policy_loss": {"loss_mode": "cisp0"}}}}, "did you mean cispo?"),
        ({"actor_rollout_ref": {"actor": {"policy_loss": {"loss_mode": "bypass_mode"}}}}, "older trainer"),
        ({"actor_rollout_ref": {"model": {"external_lib": ["no_such_module"]}}}, "cannot be imported"),
        ({"algorithm": {"adv_estimator": "grp"}}, "adv_estimator: .* did you mean grpo?"),
        ({"algorithm": {"adv_estimator": "remax"}}, "adv_estimator: remax needs a greedy"),
        ({"algorithm": {"rollout_correction": {"rollout_is": "tokn"}}}, "rollout_is: .* mean token?"),
        ({"actor_rollout_ref": {"actor": {"use_kl_loss": True, "kl_loss_type": "k4"}}}, "kl_loss_type: "),
        ({"actor_rollout_ref": {"actor": {"clip_ratio": {"a": 1}}}}, "clip_ratio: is a value"),
        ({"actor_rollout_ref": {"actor": {"ppo_epochs": "two"}}}, "actor.ppo_epochs: .* valid integer"),
        ({"actor_rollout_ref": {"actor": {"loss_agg_mode": "x"}}}, "Invalid loss_agg_mode"),
        ({"model_engine": "veomni"}, "train.verl.model_engine: .* valid: dp, megatron"),
    ],
)
def test_an_option_that_verl_refuses_is_named(verl, words, refused):
    assert re.search(words, refused(verl)), refused(verl)


def test_each_criterion_of_a_rejection_is_looked_up(config, refused):
    by_document = {"aggregation": "seq-mean-token-mean"}
    rejection = {"rollout_rs": "token_k1,seq_mea_k1", "rollout_rs_threshold": "2,2"}
    assert "did you mean seq_mean_k1?" in refused(
        {"algorithm": {"rollout_correction": rejection}}, **by_document
    )
    rejection["rollout_rs"] = 5
    assert "does not know '5'" in refused({"algorithm": {"rollout_correction": rejection}}, **by_document)
    rejection["rollout_rs"] = "token_k1, seq_mean_k1"
    made = config({"algorithm": {"rollout_correction": rejection}}, **by_document)
    assert made.algorithm.rollout_correction.rollout_rs == "token_k1, seq_mean_k1"


@pytest.mark.parametrize(
    ("verl", "cure"),
    [
        ({"algorithm": {"filter_groups": {"enable": True}}}, "set train.filter_groups"),
        ({"trainer": {"v1": {"sampler": {"max_off_policy_strategy": "wait"}}}}, "set train.max_staleness"),
        ({"trainer": {"v1": {"separate_async": {"parameter_sync_step": 4}}}}, "one batch a step"),
        ({"trainer": {"logger": ["wandb"]}}, "set train.trackers"),
        ({"data": {"train_batch_size": 64}}, "set train.batch_size"),
        ({"data": {"gen_batch_size": 8}}, "one at a time"),
        ({"trainer": {"test_freq": 10}}, "set train.evaluate_every instead"),
        ({"trainer": {"val_before_train": True}}, "set train.evaluate_every instead"),
        ({"trainer": {"val_only": True}}, "`llmi evaluate`"),
        ({"actor_rollout_ref": {"actor": {"use_dynamic_bsz": False}}}, "train.micro_batch_tokens"),
        ({"actor_rollout_ref": {"rollout": {"scheduling_policy": "fcfs"}}}, "training comes before"),
        ({"actor_rollout_ref": {"actor": {"checkpoint": {"async_save": True}}}}, "on the disk"),
        ({"data": {"dataloader_num_workers": 2}}, "visits"),
        ({"data": {"truncation": "left"}}, "dataset class of this project"),
        ({"actor_rollout_ref": {"rollout": {"multi_turn": {"enable": True}}}}, "one turn"),
        ({"reward": {"reward_manager": {"name": "dapo"}}}, "reward.formula"),
    ],
)
def test_an_option_without_effect_is_refused_with_the_cure(verl, cure, refused):
    assert cure in refused(verl)


@pytest.mark.parametrize(
    ("mode", "size", "words"),
    [
        ("separate_async", 16, "must be train.batch_size"),
        ("sync", 12, "does not divide"),
        ("sync", 0, "does not divide"),
        ("sync", 16, ""),
    ],
)
def test_mini_batches_divide_a_batch_and_are_one_where_generators_are_separate(mode, size, words, config):
    verl = {"actor_rollout_ref": {"actor": {"ppo_mini_batch_size": size}}}
    if not words:
        assert config(verl, mode=mode).actor_rollout_ref.actor.ppo_mini_batch_size == size
        return
    with pytest.raises(ConfigError, match=words):
        config(verl, mode=mode)


def test_all_problems_are_reported_at_once(refused):
    verl = {"data": {"train_batch_size": 64, "gen_batch_size": 8}}
    assert len(refused(verl).splitlines()) == 2


def test_every_name_of_the_refusals_is_one_of_verl(config):
    from omegaconf import OmegaConf

    from policy.train.options.refusals import FIXED, SETTINGS, UNREAD

    made = config()
    missing = object()
    assert [
        name
        for name in (*SETTINGS, *UNREAD, *FIXED)
        if OmegaConf.select(made, name, default=missing) is missing
    ] == []


@pytest.mark.parametrize("mode", ["separate_async", "colocate_async", "sync"])
@pytest.mark.parametrize("admission", ["adaptive", "fixed"])
def test_verls_trainer_reads_the_section_of_its_mode(mode, admission, config):
    """verl's base class reads `trainer.v1.<name of the mode>`; that of an unknown name would be empty."""
    v1 = config(mode=mode, admission=admission).trainer.v1
    assert v1.trainer_mode != mode
    assert v1[v1.trainer_mode] == v1[mode]
    assert v1.get(v1.trainer_mode, {}).get("parameter_sync_step", 1) == 1


def test_the_base_class_of_verl_reads_the_section_by_the_name_of_the_mode():
    """When this fails, see whether `+trainer.v1.<mode>` of `verl_options` is still needed."""
    import inspect

    from verl.trainer.ppo.v1 import PPOTrainer

    assert "self.config.trainer.v1.get(self.trainer_mode, {})" in inspect.getsource(PPOTrainer)


def test_lora_reaches_verls_model_and_is_merged(config):
    model = config(lora={"rank": 16, "alpha": 64, "targets": ["q_proj", "v_proj"]}).actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, model.lora.merge) == (16, 64, True)
    assert model.target_modules == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("verl", "train"),
    [
        ({}, {"lora": {"rank": 8, "merge": False}}),
        ({"actor_rollout_ref": {"model": {"lora_rank": 8}}}, {}),
        ({"actor_rollout_ref": {"model": {"lora": {"merge": False}}}}, {"lora": {"rank": 8}}),
    ],
)
def test_adapters_that_separate_generators_would_never_get_are_refused(verl, train, refused):
    assert "set train.lora.merge: true" in refused(verl, **train)


def test_an_engine_that_sends_no_adapters_is_refused(refused):
    verl = {"actor_rollout_ref": {"rollout": {"checkpoint_engine": {"backend": "delta_sharded"}}}}
    assert "delta_sharded sends the weights without" in refused(verl, lora={"rank": 8})


LORA = {"actor_rollout_ref": {"model": {"lora": {"rank": 8, "merge": True}}}}


@pytest.mark.parametrize(
    ("verl", "train", "words"),
    [
        ({"model_engine": "megatron"}, {"lora": {"rank": 8}}, "train.lora.rank: .* Megatron.*set train.verl"),
        (LORA, {}, "model.lora.rank: .* FSDP.*set train.lora.rank"),
    ],
)
def test_a_rank_that_the_engine_does_not_read_is_refused(verl, train, words, refused):
    assert re.search(words, refused(verl, sequence_parallel=1, **train))


def test_megatron_gets_adapters_by_its_own_option(config):
    made = config({"model_engine": "megatron"} | LORA, sequence_parallel=1).actor_rollout_ref.model
    assert (made.lora.rank, made.lora.merge) == (8, True)


def test_adapters_alone_are_sent_where_verl_can(config, refused):
    made = config(mode="sync", lora={"rank": 8, "merge": False})
    assert made.actor_rollout_ref.model.lora.merge is False
    assert "vLLM loads no adapters on a CPU" in refused(
        name="demo", mode="colocate_async", lora={"rank": 8, "merge": False}
    )


def test_an_adapter_that_would_not_be_loaded_is_refused(refused):
    verl = {"actor_rollout_ref": {"model": {"lora_adapter_path": "adapter"}}}
    assert "set train.lora.rank" in refused(verl)


@pytest.mark.parametrize(
    ("form", "in_loss", "in_reward"), [("none", False, False), ("loss", True, False), ("reward", False, True)]
)
def test_kl_is_in_the_loss_or_in_the_reward(form, in_loss, in_reward, config):
    from verl.trainer.ppo.utils import need_reference_policy

    made = config(kl={"form": form, "coef": 0.02, "estimator": "mse"})
    actor = made.actor_rollout_ref.actor
    assert (actor.use_kl_loss, made.algorithm.use_kl_in_reward) == (in_loss, in_reward)
    assert (actor.kl_loss_coef, actor.kl_loss_type) == (0.02, "mse")
    assert (made.algorithm.kl_ctrl.kl_coef, made.algorithm.kl_penalty) == (0.02, "mse")
    assert need_reference_policy(made) == (form != "none")


def test_a_reference_model_on_a_cpu_is_not_offloaded(config):
    ref = config(name="demo", kl={"form": "loss"}).actor_rollout_ref.ref
    assert ref.fsdp_config.forward_only is False
    assert ref.optim.lr > 0  # verl builds an optimiser for such a model
    assert config(kl={"form": "loss"}).actor_rollout_ref.ref.fsdp_config.forward_only is True


def test_offload_moves_weights_and_optimiser(config):
    made = config(offload_params=True, offload_optimizer=False).actor_rollout_ref
    assert (made.actor.fsdp_config.param_offload, made.actor.fsdp_config.optimizer_offload) == (True, False)
    assert made.ref.fsdp_config.param_offload is True
    on_cpu = config(name="demo", offload_params=True).actor_rollout_ref.actor.fsdp_config
    assert (on_cpu.param_offload, on_cpu.optimizer_offload) == (False, False)


@pytest.mark.parametrize(("enable", "most"), [(True, 80), (False, None)])
def test_the_sampler_is_given_how_many_groups_without_a_signal_it_may_replace(enable, most, config):
    made = config(filter_groups={"enable": enable, "max_batches": 2.5}, batch_size=32)
    assert made.trainer.v1.sampler.sampler_kwargs.max_no_signal == most


def test_a_rollout_that_uses_all_its_time_is_no_stall(config):
    sampler = config(rollout_timeout_s=100).trainer.v1.sampler.sampler_kwargs
    assert sampler.stall_s > 3 * 100 + SAVE_S  # prompt, text, tools and judges; saving the text


def test_evaluations_come_after_training_in_vllm_and_are_never_verls_own(config):
    made = config(evaluate_every=5, evaluate_prompts=16)
    assert made.actor_rollout_ref.rollout.scheduling_policy == "priority"
    assert (made.trainer.test_freq, made.trainer.val_before_train) == (-1, False)
    assert (made.trainer.evaluate_every, made.data.val_max_samples) == (5, 16)
    without = config(evaluate_every=0)
    assert without.actor_rollout_ref.rollout.scheduling_policy == "fcfs"
    assert without.data.val_max_samples == -1


def test_megatron_trains_with_the_same_schedule(config):
    verl = {
        "model_engine": "megatron",
        "actor_rollout_ref": {"actor": {"megatron": {"expert_model_parallel_size": 8}}},
    }
    made = config(verl, "qwen3_30b_a3b_gspo", sequence_parallel=1, offload_params=True).actor_rollout_ref
    assert (made.actor.strategy, made.actor.megatron.expert_model_parallel_size) == ("megatron", 8)
    assert (made.actor.optim.lr_decay_style, made.actor.optim.min_lr) == ("cosine", 1e-8)
    assert made.actor.megatron.param_offload is True


def test_megatron_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="needs device: cuda"):
        TrainSettings(model="m", device="cpu", verl={"model_engine": "megatron"})


def test_mappings_and_lists_are_written_in_hydras_grammar():
    assert quote({"a": 1, "b": [True, None, "it's"]}) == "{a:1,b:[true,null,'it\\'s']}"
