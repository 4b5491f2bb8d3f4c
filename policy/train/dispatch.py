"""Assign groups to rollout processes by load (verl 0.9.1: `rollout.agent.agent_loop_manager_class`).

verl's own manager splits each batch into equal chunks, starting at its first process. A process that is slow,
or got the slow prompts, would get as many as the others; and single prompts, as `policy.admission.feeder`
submits them, would all go to the first one. Here each prompt goes to the process with the fewest groups in
flight. Documents of an evaluation are apart: one has a small part of the work of a group.

A group that failed or has too few valid samples counts as in flight for `FAILED_S` after it was dropped.
Otherwise a process with rollouts that raise at once would always have the fewest, and would get every
replacement.

Invariants:
- the siblings of a group stay in one process;
- a group is in flight from its submission until verl's transfer queue has it as finished or failed, or no
  longer has it;
- processes with equally many get prompts in turn.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import ray
import transfer_queue as tq
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.utils import tensordict_utils as tu

from policy.train.verl_private import TRAIN, VAL

IN_FLIGHT = ("pending", "running")  # values of verl's tag `status`
FAILED_S = 60.0


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


class GroupsByProcess:
    """The rollout process of each group, and what counts as in flight for it. Times in seconds."""

    def __init__(self) -> None:
        self._next = 0
        self._process_of: dict[str, int] = {}  # by uid of a group that verl's transfer queue has
        self._failed: list[tuple[int, float]] = []  # process, and when the group was dropped

    def assign(
        self, uids: Sequence[str], processes: int, statuses: Mapping[str, str], now: float
    ) -> list[int]:
        """The process for each of these new groups.

        `statuses`: of all groups that verl's transfer queue has.
        """
        self._process_of = {uid: one for uid, one in self._process_of.items() if uid in statuses}
        self._failed = [(one, at) for one, at in self._failed if now - at < FAILED_S]
        counts = Counter(one for uid, one in self._process_of.items() if statuses[uid] in IN_FLIGHT)
        counts.update(one for one, _ in self._failed)
        chosen = assign(len(uids), [counts[one] for one in range(processes)], self._next)
        self._next = (chosen[-1] + 1) % processes
        self._process_of.update(zip(uids, chosen, strict=True))
        return chosen

    def failed(self, uids: AbstractSet[str], now: float) -> None:
        """Count these groups for `FAILED_S` more."""
        self._failed += [(self._process_of.pop(uid), now) for uid in uids if uid in self._process_of]


class LeastLoadedManager(AgentLoopManagerTQ):
    """Assigns each prompt to the rollout process with the fewest groups in flight."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._groups = {partition: GroupsByProcess() for partition in (TRAIN, VAL)}

    def generate_sequences(self, prompts: Any) -> None:
        """Start the rollouts of a batch (a `TensorDict`); returns when every process has its prompts."""
        processes = self.agent_loop_workers
        partition = VAL if tu.get_non_tensor_data(prompts, "validate", False) else TRAIN
        tags = (tq.kv_list(partition) or {}).get(partition, {})
        statuses = {uid: tag.get("status", "") for uid, tag in tags.items()}
        groups = self._groups[partition]
        chosen = groups.assign(list(prompts["uid"]), len(processes), statuses, time.monotonic())
        started = []
        for process in sorted(set(chosen)):
            rows = [row for row, one in enumerate(chosen) if one == process]
            share = tu.index_select_tensor_dict(prompts, rows)
            started.append(processes[process].generate_sequences.remote(share))
        ray.get(started)

    def groups_failed(self, uids: AbstractSet[str]) -> None:
        """Note groups that are about to be dropped because they failed or have too few valid samples."""
        self._groups[TRAIN].failed(uids, time.monotonic())
