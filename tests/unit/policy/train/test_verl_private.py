"""The private names of verl that `policy.train.verl_private` overrides exist, with the same parameters."""

from __future__ import annotations

import inspect

import pytest

OVERRIDDEN = {
    "_sync_metadata_from_transfer_queue": (),
    "_terminal_eviction_reasons": ("global_steps", "partition_id"),
    "_evict_terminal_groups": ("global_steps", "partition_id", "eviction_reasons"),
    "_sampleable_terminal_keys": ("partition_id", "eviction_reasons"),
    "_select_prompt_uids": ("partition_id", "sampleable_keys", "batch_size"),
    "_materialize_batch": ("partition_id", "selected_prompt_uids", "partition_snapshot"),
    "_wait_for_next_poll": ("partition_id", "last_debug_time"),
}


def parameters(method) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_samplers_of_verl_have_the_overridden_method(name):
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

    from policy.train.verl_private import SamplerHooks

    assert parameters(getattr(SamplerHooks, name)) == OVERRIDDEN[name]
    for buffer in (ReplayBuffer, ReplayBufferAsync):
        assert parameters(getattr(buffer, name)) == OVERRIDDEN[name]


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
@pytest.mark.parametrize("name", ["_fetch_one_gen_batch", "_load_checkpoint"])
def test_the_trainers_of_verl_have_the_overridden_method(mode, name):
    from verl.trainer.ppo.v1 import get_trainer_cls

    assert parameters(getattr(get_trainer_cls(mode), name)) == ()


def test_the_hooks_hide_no_name_of_verl():
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

    from policy.train.sampler import GroupSampler, GroupSamplerAsync
    from policy.train.verl_private import SamplerHooks

    hooks = {name for name in vars(SamplerHooks) if not name.startswith("__")} - OVERRIDDEN.keys()
    for sampler, buffer in ((GroupSampler, ReplayBuffer), (GroupSamplerAsync, ReplayBufferAsync)):
        assert issubclass(sampler, buffer)
        assert not [name for name in hooks if hasattr(buffer, name)]
