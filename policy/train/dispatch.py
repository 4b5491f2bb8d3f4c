"""Assign groups to rollout processes round-robin (verl 0.9.1: `rollout.agent.agent_loop_manager_class`).

verl's own manager splits each batch into contiguous chunks, starting at its first process. Prompts that are
submitted one at a time, as `policy.admission.feeder` does, would all go to that one. Here the next batch
continues where the last one ended.

Invariant: over any number of batches, no process gets two prompts more than another.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu


def round_robin(prompts: int, processes: int, first: int) -> list[list[int]]:
    """The rows of a batch for each process, when process `first` gets the first row."""
    return [list(range((process - first) % processes, prompts, processes)) for process in range(processes)]


class RoundRobinManager(AgentLoopManagerTQ):
    """Assigns prompts to rollout processes in turn."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._next = 0

    def generate_sequences(self, prompts: Any) -> None:
        """Start the rollouts of a batch (a `TensorDict`); returns when every process has its prompts."""
        processes = self.agent_loop_workers
        shares = round_robin(len(prompts), len(processes), self._next)
        self._next = (self._next + len(prompts)) % len(processes)
        ray.get(
            [
                process.generate_sequences.remote(tu.index_select_tensor_dict(prompts, rows))
                for process, rows in zip(processes, shares, strict=True)
                if rows
            ]
        )
