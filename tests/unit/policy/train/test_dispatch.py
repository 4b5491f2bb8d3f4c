"""Prompts are spread over all rollout processes, however few are submitted at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.train.dispatch import RoundRobinManager, round_robin

PROCESSES = 3


@given(st.integers(1, 9), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_no_process_gets_two_prompts_more_than_another(processes: int, batches: list[int]) -> None:
    given_to, first = [0] * processes, 0
    for prompts in batches:
        shares = round_robin(prompts, processes, first)
        assert sorted(row for rows in shares for row in rows) == list(range(prompts)), "each once"
        given_to = [count + len(rows) for count, rows in zip(given_to, shares, strict=True)]
        assert max(given_to) - min(given_to) <= 1
        first = (first + prompts) % processes


@pytest.fixture(scope="module")
def spreading() -> Iterator[RoundRobinManager]:
    """A manager as verl makes it, with three stub Ray processes that keep their arguments."""
    import ray
    from omegaconf import OmegaConf

    ray.init(num_cpus=PROCESSES, include_dashboard=False, configure_logging=False)

    @ray.remote(num_cpus=1)
    class Process:
        def __init__(self, *_: Any) -> None:
            self.uids: list[str] = []

        async def generate_sequences(self, batch: Any) -> None:
            self.uids += list(batch["uid"])

        async def seen(self) -> list[str]:
            return self.uids

    class Manager(RoundRobinManager):
        def __init__(self, **options: Any):
            super().__init__(**options)
            self.agent_loop_workers_class = Process

    agent = {"num_workers": PROCESSES}
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"agent": agent}, "model": {}}})
    yield Manager.create(config=config, llm_client=None, teacher_client=None, reward_loop_worker_handles=None)
    ray.shutdown()


def batch(*uids: str) -> Any:
    """Prompts in verl's form."""
    import torch
    from verl.utils import tensordict_utils as tu

    lengths = [torch.arange(length) for length in range(1, len(uids) + 1)]
    nested = torch.nested.as_nested_tensor(lengths, layout=torch.jagged)  # as verl's own batches hold
    made = tu.get_tensordict({"index": torch.arange(len(uids)), "nested": nested}, {})
    tu.assign_non_tensor_stack(made, "uid", list(uids))
    tu.assign_non_tensor_data(made, "global_steps", 3)
    return made


@pytest.mark.heavy
def test_single_prompts_reach_every_process(spreading: RoundRobinManager) -> None:
    import ray

    for n in range(6):
        spreading.generate_sequences(batch(f"single-{n}"))
    spreading.generate_sequences(batch(*(f"many-{n}" for n in range(4))))
    seen = ray.get([process.seen.remote() for process in spreading.agent_loop_workers])
    assert seen == [
        ["single-0", "single-3", "many-0", "many-3"],
        ["single-1", "single-4", "many-1"],
        ["single-2", "single-5", "many-2"],
    ]
    assert max(Counter(uid for uids in seen for uid in uids).values()) == 1
