"""Which rollout process writes which group (verl 0.9.1: `rollout.agent.agent_loop_manager_class`).

verl's own manager splits each batch into contiguous chunks, from its first process on: prompts that are
submitted one at a time, as `policy.admission.feeder` does, all go to the first. Here the turns go on from
batch to batch. Invariant: over any number of batches, no process has been given two prompts more than
another.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu


def round_robin(prompts: int, processes: int, first: int) -> list[list[int]]:
    """The rows of a batch that each process gets, when the turn is that of process `first`."""
    return [list(range((process - first) % processes, prompts, processes)) for process in range(processes)]


class RoundRobinManager(AgentLoopManagerTQ):
    """Gives prompts to rollout processes in turn."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._turn = 0

    def generate_sequences(self, prompts: Any) -> None:
        """Start the rollouts of a batch (a `TensorDict`); returns when every process has its prompts."""
        processes = self.agent_loop_workers
        shares = round_robin(len(prompts), len(processes), self._turn)
        self._turn = (self._turn + len(prompts)) % len(processes)
        ray.get(
            [
                process.generate_sequences.remote(tu.index_select_tensor_dict(prompts, rows))
                for process, rows in zip(processes, shares, strict=True)
                if rows
            ]
        )
