"""verl's options of a supervised training, composed with verl's own configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from cpu_train import CPU_TRAIN

from policy.settings import TrainSettings
from policy.sft.plan import Plan, plan
from policy.sft.settings import SftSettings
from policy.sft.verl_options import CONFIG_NAME, SETTINGS, overrides, problems
from policy.train.options.verl_config import compose
from workers.errors import ConfigError

CUDA = {
    "model": "Qwen/Qwen3-4B",
    "lora": {"rank": 8},
    "verl": {"data": {"apply_chat_template_kwargs": {"a": 1}}},
}


def resolved(train: dict, sft: dict | None = None, **more):
    settings, chosen = TrainSettings(**train), SftSettings(**(sft or {}))
    options = overrides(settings, chosen, Plan(20, 8, 3), Path("runs/mine"), **more)
    return list(problems(settings, chosen, options)), compose(options, CONFIG_NAME)


def test_the_options_of_a_gpu_run_are_known_to_verl():
    found, config = resolved(CUDA, {"lr": 3e-5, "save_every": 5, "max_tokens": 4096}, resume=True)
    assert found == []
    assert (config.optim.lr, config.data.max_length, config.model.lora_rank) == (3e-5, 4096, 8)
    assert config.engine.strategy == "fsdp2"
    assert config.engine.ulysses_sequence_parallel_size == 2
    assert config.data.apply_chat_template_kwargs == {"a": 1}
    trainer = config.trainer
    assert (trainer.total_training_steps, trainer.total_epochs, trainer.save_freq) == (20, 3, 5)
    assert trainer.resume_mode == "auto"
    assert trainer.default_local_dir == str(Path("runs/mine/checkpoints").absolute())


def test_the_options_of_a_cpu_run_are_known_to_verl():
    found, config = resolved(CPU_TRAIN)
    assert found == []
    assert (config.trainer.device, config.model.use_remove_padding) == ("cpu", False)
    assert config.data.max_length == 500  # of a prompt and a document together
    assert (config.trainer.save_freq, config.trainer.resume_mode) == (-1, "disable")


def test_options_of_the_user_are_merged_last():
    found, config = resolved(
        CPU_TRAIN, {"verl": {"optim": {"betas": [0.9, 0.95]}, "engine": {"reshard_after_forward": False}}}
    )
    assert found == []
    assert list(config.optim.betas) == [0.9, 0.95]
    assert config.engine.reshard_after_forward is False


@pytest.mark.parametrize(
    ("verl", "problem"),
    [
        ({"optim": {"lr": 1.0}}, "sft.verl.optim.lr: has no effect or would break the training; set sft.lr"),
        ({"trainer": {"nnodes": 2}}, "set train.trainer_nodes"),
        ({"model": {"custom_chat_template": "x"}}, "sft.verl.model.custom_chat_template: has no effect or"),
        ({"model": {"tokenizer_path": "x"}}, "set train.model to a folder with that tokenizer"),
        (
            {"optim": {"betaz": 1}},
            "sft.verl.optim.betaz: verl 0.9.1 has no such option; did you mean optim.betas",
        ),
        ({"engine": {"reshard_after_forward": "maybe"}}, "sft.verl.engine.reshard_after_forward: "),
    ],
)
def test_what_verl_or_the_training_would_not_read_is_refused(verl, problem):
    settings, chosen = TrainSettings(**CPU_TRAIN), SftSettings(verl=verl)
    options = overrides(settings, chosen, Plan(1, 1, 1), Path("run"))
    assert problem in "\n".join(problems(settings, chosen, options))


def test_every_option_that_is_set_elsewhere_exists():
    config = compose([], CONFIG_NAME)
    for name in SETTINGS:
        above, _, key = name.rpartition(".")
        section = config
        for part in above.split("."):
            section = section[part]
        assert key in section, name


@pytest.mark.parametrize(
    ("examples", "sft", "expected"),
    [
        (20, {"batch_size": 4}, Plan(5, 5, 1)),
        (23, {"batch_size": 4, "epochs": 3}, Plan(15, 5, 3)),
        (20, {"batch_size": 4, "steps": 12}, Plan(12, 5, 3)),
        (20, {"batch_size": 4, "steps": 3}, Plan(3, 5, 1)),
    ],
)
def test_steps_and_passes(examples, sft, expected):
    assert plan(examples, TrainSettings(**CPU_TRAIN), SftSettings(**sft)) == expected


def test_examples_are_counted_for_each_rank():
    train = TrainSettings(model="m", trainer_gpus=8, sequence_parallel=2)  # four ranks
    assert plan(19, train, SftSettings(batch_size=8)).per_epoch == 2
    with pytest.raises(
        ConfigError, match=r"sft.batch_size: 6 must be a multiple of the 4 data-parallel ranks"
    ):
        plan(19, train, SftSettings(batch_size=6))
    with pytest.raises(ConfigError, match=r"sft.batch_size: 32 is more than the 19 documents"):
        plan(19, train, SftSettings(batch_size=32))
