"""Which groups are trained on, and the terminal state of every rollout that wrote something (verl 0.9.1
samplers).

Chosen by `trainer.v1.sampler.custom_sampler`. Invariants: a masked sample has no trajectory, so that it is in
no group's mean, deviation or loss; a group with fewer valid samples than `min_valid` is thrown away and
replaced, like one of which a rollout failed, and each step's metrics say how many were and why; every rollout
whose trajectory leaves the buffer gets its terminal state in the ledger then and there (those without a
trajectory were closed by the rollout itself); of the groups that are ready, those submitted first are trained
on first, and a batch is in order of submission too (with `in_order`, a group also waits for all that were
submitted before it); how many are asked for decides `policy.admission.feeder`; waiting for a batch ends with
an error when no group has ended for `stall_s` without a pause, or when `max_wasted` of them were of no use,
those not counted whose samples a provider that is down has masked.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from policy.admission.feeder import PromptFeeder
from policy.admission.outage import Outage
from policy.admission.pause import Pause
from policy.admission.window import InFlight, Window
from policy.ledger.entries import State
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.plan import ResumePlan
from workers.settings import QueueSettings, section

if TYPE_CHECKING:
    _Base = Any  # mixed in before one of verl's buffers, which type checkers do not see
else:
    _Base = object

TRAIN = "train"
Fate = Literal["stale", "failed", "too_few"]
# Why a group was replaced, and how that is told.
FATES: dict[Fate, str] = {
    "stale": "stale",
    "failed": "failed",
    "too_few": "with too few samples that may vote",
}
Reasons = tuple[set[str], set[str], set[str], Counter]


class _Siblings(_Base):
    """What both samplers share; mixed in before verl's class."""

    partitions: dict[str, dict[str, dict]]
    prompt_global_steps: dict[str, dict[str, int]]
    finished_keys: dict[str, set]
    failure_keys: dict[str, set]
    pending_keys: dict[str, set]
    running_keys: dict[str, set]
    refill_fn: Callable[[int], Any]

    def __init__(self, *, sampler_kwargs: Any, **kwargs: Any):
        super().__init__(sampler_kwargs=sampler_kwargs, poll_interval=float(sampler_kwargs.poll_s), **kwargs)
        self._n = int(sampler_kwargs.n)
        self._min_valid = int(sampler_kwargs.min_valid)
        self._stall_s = float(sampler_kwargs.stall_s)
        run = Path(sampler_kwargs.run)
        self._ledger = LedgerWriter(run, "trainer")
        self._texts = CompletionStore(run)
        self._resumption = ResumePlan.load(run)
        self._saves = bool(sampler_kwargs.saves)
        self._done: set[str] = set()  # groups that are over, but in no checkpoint yet
        self._in_order = bool(sampler_kwargs.in_order)
        self._step = 0
        self._ended: set[str] = set()
        self._ended_at = time.monotonic()
        self._max_wasted = int(sampler_kwargs.max_wasted)
        self._wasted: Counter[Fate] = Counter()
        self._excused = 0
        self._votes = (0, 0)
        window = sampler_kwargs.get("window")
        queue = section("queue", QueueSettings)
        self._pause = Pause(Outage(**sampler_kwargs.pause), queue, self._ledger)
        self._asking = PromptFeeder(self.refill_fn, Window(**window) if window else None, self._pause, queue)
        self.refill_fn = self._asking.refill

    def saved(self, step: int) -> None:
        """A checkpoint holds all that was done until `step`: whoever resumes needs nothing from before."""
        self._ledger.saved(step=step, held=self._held())
        self._forget()

    def _held(self) -> tuple[str, ...]:
        """Rollouts whose trajectories verl has saved, or would have a moment later: they are looked up
        after."""
        return ()

    def _over(self, uids: set[str]) -> None:
        """These groups are done with, unless a death undoes it."""
        self._done |= uids
        if not self._saves:  # nor will any checkpoint ever hold them
            self._forget()

    def _forget(self) -> None:
        self._texts.forget(self._done)
        self._done.clear()

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        # A group with texts from before a resume is as old as the oldest of them, whenever it was submitted.
        steps = self.prompt_global_steps[TRAIN]
        for uid in steps.keys() & self._resumption.steps.keys():
            steps[uid] = min(steps[uid], self._resumption.steps[uid])

    def _terminal_eviction_reasons(self, global_steps: int, partition_id: str) -> Reasons:
        stale, dapo, failed, counts = super()._terminal_eviction_reasons(global_steps, partition_id)
        if partition_id == TRAIN:
            failed = failed | self.failure_keys[TRAIN] | self._too_few(self.finished_keys[TRAIN])
        return stale, dapo, failed, counts

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, eviction_reasons: Reasons) -> Any:
        stale, _dapo, unusable, _counts = eviction_reasons
        if partition_id == TRAIN:
            self._look_for_outages(unusable)
        members = self._members(stale | unusable)
        self._over(stale | unusable)
        for uid in stale | unusable:
            if uid in self.failure_keys[TRAIN]:
                self._ledger.group_failed(uid, step=global_steps)
                self._wasted["failed"] += 1
                continue
            fate, state, reason = self._why(uid, stale)
            self._wasted[fate] += 1
            if fate == "too_few":
                self._excused += self._pause.excuses
                self._ledger.group_dropped(uid, step=global_steps)
            for rollout_id in members[uid]:
                self._ledger.closed(rollout_id, state, reason=reason, step=global_steps)
        if self._wasted.total() - self._excused > self._max_wasted:
            told = ", ".join(f"{count} {FATES[fate]}" for fate, count in self._wasted.items())
            raise RuntimeError(
                f"too many groups in step {global_steps} were of no use: {told}; see the ledger"
            )
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        self._step, self._ended_at = global_steps, time.monotonic()
        if partition_id != TRAIN:
            return super().sample(global_steps, partition_id, batch_size)
        stale = self._wasted["stale"]
        self._wasted.clear()
        self._excused, self._pause.spent_s = 0, 0.0
        began = time.time()
        if self._asking.window is not None:
            self._sync_metadata_from_transfer_queue()
            gone_stale, dapo, failed, _ = self._terminal_eviction_reasons(global_steps, TRAIN)
            self._look_for_outages(failed)
            flight = self._flight_after_refills(gone_stale | dapo | failed)
            self._asking.begin(global_steps, flight, stale)
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        self._ledger.waited(began, step=global_steps)
        outage = {"outage/paused_s": round(self._pause.spent_s, 1), "outage/groups_excused": self._excused}
        return batch, metrics | self._validity() | self._asking.metrics(self._flight(), batch_size) | outage

    def _look_for_outages(self, unusable: set[str]) -> None:
        finished = self.finished_keys[TRAIN]
        self._asking.look(
            usable=finished - unusable,
            unusable=finished & unusable,
            open_=self.pending_keys[TRAIN] | self.running_keys[TRAIN],
        )

    def _flight(self) -> InFlight:
        """By the snapshot of the last poll."""
        return InFlight(
            ready=len(self.finished_keys[TRAIN]),
            open=len(self.pending_keys[TRAIN]) + len(self.running_keys[TRAIN]),
        )

    def _flight_after_refills(self, replaced: set[str]) -> InFlight:
        """As it will be when verl has replaced these groups, which are of no use."""
        flight = self._flight()
        return InFlight(ready=len(self.finished_keys[TRAIN] - replaced), open=flight.open + len(replaced))

    def _validity(self) -> dict[str, int]:
        """What the step that was sampled last is made of, and what was replaced on the way to it."""
        valid, total = self._votes
        replaced = {f"validity/groups_{fate}": self._wasted[fate] for fate in FATES}
        return {"validity/n_valid": valid, "validity/n_total": total, **replaced}

    def _sampleable_terminal_keys(self, partition_id: str, eviction_reasons: Reasons) -> set[str]:
        ready = super()._sampleable_terminal_keys(partition_id, eviction_reasons)
        if partition_id != TRAIN or not self._in_order:
            return ready
        return set(takewhile(ready.__contains__, self.prompt_global_steps[TRAIN]))

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], batch_size: int) -> Any:
        # verl sorts by step, and its sort is stable; what it gets from the transfer queue is in order of
        # submission, while the order of a set of random ids would be another one in each run.
        submitted = [uid for uid in self.prompt_global_steps[partition_id] if uid in sampleable_keys]
        return super()._select_prompt_uids(partition_id, submitted, batch_size)

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], snapshot: Any) -> Any:
        if partition_id == TRAIN:
            groups = self._members(set(selected_prompt_uids))
            self._over(set(selected_prompt_uids))
            self._votes = sum(map(len, groups.values())), self._n * len(selected_prompt_uids)
            for members in groups.values():
                for rollout_id in members:
                    self._ledger.closed(rollout_id, "trained", step=self._step)
        ordered = dict(sorted(snapshot.items(), key=lambda item: _place(item[0], selected_prompt_uids)))
        return super()._materialize_batch(partition_id, selected_prompt_uids, ordered)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        ended = self.finished_keys[partition_id] | self.failure_keys[partition_id]
        if ended - self._ended or self._pause.on:
            self._ended_at = time.monotonic()
        self._ended = ended
        if time.monotonic() - self._ended_at > self._stall_s:
            raise TimeoutError(f"no group of rollouts has ended for {self._stall_s:.0f} s")
        if partition_id == TRAIN:
            self._asking.wait(self._step, self._flight())
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def _members(self, uids: set[str]) -> dict[str, list[str]]:
        """Rollouts with a trajectory, by group. Keys are `{uid}_{session}_{index}`, a uid holds no
        underscore."""
        members: dict[str, list[str]] = defaultdict(list)
        for key in self.partitions[TRAIN]:
            uid, session, _index = key.rsplit("_", 2)
            if uid in uids:
                members[uid].append(self._resumption.name(uid, session))
        return members

    def _too_few(self, uids: set[str]) -> set[str]:
        members = self._members(uids)
        return {uid for uid in uids if len(members[uid]) < self._min_valid}

    def _why(self, uid: str, stale: set[str]) -> tuple[Fate, State, str]:
        if uid in stale:
            return "stale", "stale", "written by weights that are too old"
        return (
            "too_few",
            "masked",
            f"dropped with its group, which had fewer than {self._min_valid} valid samples",
        )


def _place(key: str, uids: list[str]) -> tuple[int, int, int]:
    """Where a trajectory stands in a batch of the groups `uids`."""
    uid, session, index = key.rsplit("_", 2)
    return uids.index(uid) if uid in uids else len(uids), int(session), int(index)


class GroupSamplerAsync(_Siblings, ReplayBufferAsync):
    """For `separate_async` and `colocate_async`, where a checkpoint has what was under way."""

    def _held(self) -> tuple[str, ...]:
        self._sync_metadata_from_transfer_queue()
        members = self._members(self.finished_keys[TRAIN])
        return tuple(rollout_id for group in members.values() for rollout_id in group)


class GroupSampler(_Siblings, ReplayBuffer):
    """For `sync`, where verl replaces unusable groups only when told to."""

    def __init__(self, **kwargs: Any):
        super().__init__(sync_refill_failed_groups=True, gen_batch_size=1, **kwargs)
