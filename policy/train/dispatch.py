"""Assign groups to rollout processes by load (verl 0.9.1: `rollout.agent.agent_loop_manager_class`).

verl's own manager splits each batch into equal chunks, starting at its first process. A process that is slow,
or got the slow prompts, would get as many as the others; and single prompts, as `policy.admission.feeder`
submits them, would all go to the first one. Here each prompt goes to the process with the fewest groups in
flight.

Invariants:
- the siblings of a group stay in one process;
- a group is in flight from its submission until verl's transfer queue has it as finished or failed, or no
  longer has it;
- processes with equally many get prompts in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import ray
import transfer_queue as tq
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu

IN_FLIGHT = ("pending", "running")  # values of verl's tag `status`


def assign(prompts: int, in_flight: Sequence[int], first: int) -> list[int]:
    """The process for each prompt of a batch.

    `in_flight`: groups that each process has. `first`: the process that is the first to get a prompt among
    equals.
    """
    counts, processes = list(in_flight), len(in_flight)
    chosen = []
    for _ in range(prompts):
        process = min(range(processes), key=lambda one: (counts[one], (one - first) % processes))
        counts[process] += 1
        first = (process + 1) % processes
        chosen.append(process)
    return chosen


class LeastLoadedManager(AgentLoopManagerTQ):
    """Assigns each prompt to the rollout process with the fewest groups in flight."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._next = 0
        self._process_of: dict[str, int] = {}  # by uid of a group in flight

    def generate_sequences(self, prompts: Any) -> None:
        """Start the rollouts of a batch (a `TensorDict`); returns when every process has its prompts."""
        processes, uids = self.agent_loop_workers, list(prompts["uid"])
        self._forget_ended()
        counts = Counter(self._process_of.values())
        chosen = assign(len(uids), [counts[process] for process in range(len(processes))], self._next)
        self._next = (chosen[-1] + 1) % len(processes)
        self._process_of.update(zip(uids, chosen, strict=True))
        started = []
        for process in sorted(set(chosen)):
            rows = [row for row, one in enumerate(chosen) if one == process]
            share = tu.index_select_tensor_dict(prompts, rows)
            started.append(processes[process].generate_sequences.remote(share))
        ray.get(started)

    def _forget_ended(self) -> None:
        """Read from verl's transfer queue which groups are still in flight."""
        partitions = (tq.kv_list() or {}).values() if self._process_of else ()
        open_ = {uid for tags in partitions for uid, tag in tags.items() if tag.get("status") in IN_FLIGHT}
        self._process_of = {uid: one for uid, one in self._process_of.items() if uid in open_}
