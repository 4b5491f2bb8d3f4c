"""Every private name of verl 0.9.1 that training overrides or reads, behind methods with stable names.

verl has no public hooks for what happens between reading the transfer queue and building a batch, for the ids
of groups, or for registering trainers in its task runner. `tests/unit/policy/train/test_verl_private.py`
fails when verl renames one of these names or changes its parameters; a part can go when verl offers a hook
for it. (`policy.cpu.vllm_worker` calls one more, `_get_zmq_handle`, in a process that loads vLLM.)

Keys of trajectories in verl's buffer are `{uid}_{session}_{index}`; a uid contains no underscore.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import transfer_queue as tq
from verl.utils import tensordict_utils as tu

if TYPE_CHECKING:
    Base = Any  # mixed in before one of verl's classes, which type checkers do not see
else:
    Base = object

# The partitions of verl's buffer: groups to train on, and documents of evaluations.
TRAIN, VAL = "train", "val"
Reasons = tuple[set[str], set[str], set[str], Counter]  # stale, filtered, failed groups; counts


class SamplerHooks(Base):
    """Mixed in before one of verl's replay buffers. Subclasses override the methods below `# hooks`."""

    partitions: dict[str, dict[str, dict]]
    prompt_global_steps: dict[str, dict[str, int]]
    finished_keys: dict[str, set]
    failure_keys: dict[str, set]
    pending_keys: dict[str, set]
    running_keys: dict[str, set]
    refill_fn: Callable[[int], Any]

    # hooks

    def adjust_steps(self, steps: dict[str, int]) -> None:
        """Change the step from which each group's age counts, after verl has read the transfer queue."""

    def unusable_groups(self) -> set[str]:
        """Groups to replace besides those that verl finds itself."""
        return set()

    def before_eviction(self, step: int, partition_id: str, stale: set[str], unusable: set[str]) -> None:
        """Handle groups that verl is about to drop and replace."""

    def selectable(self, ready: set[str]) -> set[str]:
        """Choose the groups that may be trained on among those that are ready."""
        return ready

    def selected(self, uids: list[str]) -> None:
        """Handle the groups of the next batch."""

    def before_poll(self, partition_id: str) -> None:
        """Called before each pause between two reads of the transfer queue."""

    # reads

    def read_queue(self) -> None:
        """Read the state of all groups from verl's transfer queue."""
        self._sync_metadata_from_transfer_queue()

    def to_evict(self, step: int) -> tuple[set[str], set[str]]:
        """The groups that verl will replace in `step`: all of them, and those that failed or are unusable."""
        stale, filtered, failed, _ = self._terminal_eviction_reasons(step, TRAIN)
        return stale | filtered | failed, failed

    def sessions(self, uids: set[str]) -> dict[str, list[str]]:
        """The sessions with a trajectory, by group."""
        sessions: dict[str, list[str]] = defaultdict(list)
        for key in self.partitions[TRAIN]:
            uid, session, _index = key.rsplit("_", 2)
            if uid in uids:
                sessions[uid].append(session)
        return sessions

    def rewards(self, uids: set[str]) -> dict[str, list[float]]:
        """The rewards of these groups' trajectories, without a KL penalty."""
        keys = [key for key in self.partitions[TRAIN] if key.split("_")[0] in uids]
        found: dict[str, list[float]] = defaultdict(list)
        if keys:
            data = tq.kv_batch_get(keys=keys, partition_id=TRAIN, select_fields=["rm_scores"])
            for key, scores in zip(keys, list(data["rm_scores"]), strict=True):
                found[key.split("_")[0]].append(float(scores.sum()))
        return found

    def prompts(self, uids: set[str]) -> dict[str, int]:
        """The prompt of each of these groups that has a trajectory."""
        keys = {key.split("_")[0]: key for key in self.partitions[TRAIN] if key.split("_")[0] in uids}
        if not keys:
            return {}
        data = tq.kv_batch_get(keys=[*keys.values()], partition_id=TRAIN, select_fields=["index"])
        return {uid: int(index) for uid, index in zip(keys, data["index"], strict=True)}

    # overrides

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        self.adjust_steps(self.prompt_global_steps[TRAIN])

    def _terminal_eviction_reasons(self, global_steps: int, partition_id: str) -> Reasons:
        stale, filtered, failed, counts = super()._terminal_eviction_reasons(global_steps, partition_id)
        if partition_id == TRAIN:
            failed = failed | self.failure_keys[TRAIN] | self.unusable_groups()
        return stale, filtered, failed, counts

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, eviction_reasons: Reasons) -> Any:
        stale, _filtered, unusable, _counts = eviction_reasons
        self.before_eviction(global_steps, partition_id, stale, unusable)
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _sampleable_terminal_keys(self, partition_id: str, eviction_reasons: Reasons) -> set[str]:
        ready = super()._sampleable_terminal_keys(partition_id, eviction_reasons)
        return self.selectable(ready) if partition_id == TRAIN else ready

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], batch_size: int) -> Any:
        # verl sorts by step, and its sort is stable. What it reads from the transfer queue is in order of
        # submission; the order of a set of random ids would differ in each run.
        submitted = [uid for uid in self.prompt_global_steps[partition_id] if uid in sampleable_keys]
        return super()._select_prompt_uids(partition_id, submitted, batch_size)

    def _materialize_batch(
        self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict[str, dict]
    ) -> Any:
        if partition_id == TRAIN:
            self.selected(selected_prompt_uids)
        items = sorted(partition_snapshot.items(), key=lambda item: _position(item[0], selected_prompt_uids))
        return super()._materialize_batch(partition_id, selected_prompt_uids, dict(items))

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        self.before_poll(partition_id)
        return super()._wait_for_next_poll(partition_id, last_debug_time)


def _position(key: str, uids: list[str]) -> tuple[int, int, int]:
    """Sort key of a trajectory in a batch of the groups `uids`."""
    uid, session, index = key.rsplit("_", 2)
    return uids.index(uid) if uid in uids else len(uids), int(session), int(index)


class TrainerHooks(Base):
    """Mixed in before one of verl's trainers."""

    def group_ids(self, batch: Any) -> list[str]:
        """The ids of the groups of a batch of prompts."""
        raise NotImplementedError

    def _fetch_one_gen_batch(self) -> Any:
        batch = super()._fetch_one_gen_batch()
        tu.assign_non_tensor_stack(batch, "uid", self.group_ids(batch))
        return batch

    def _load_checkpoint(self) -> None:
        """Also clear trajectories of the batch that the checkpoint was made of; verl clears them after
        saving.
        """
        super()._load_checkpoint()
        items = (tq.kv_list(TRAIN) or {}).get(TRAIN, {}) if self.global_steps else {}
        trained = [key for key in items if "_" in key and key.split("_")[0] not in items]
        if trained:
            tq.kv_clear(keys=trained, partition_id=TRAIN)


def task_runner_class() -> Any:
    """The class behind verl's task runner, which is a Ray actor and cannot be subclassed as one."""
    from verl.trainer import main_ppo

    return main_ppo.TaskRunnerV1.__ray_metadata__.modified_class.__ray_actor_class__
