"""Select the groups to train on, and record the terminal state of every rollout that has a trajectory.

verl 0.9.1 loads it through `trainer.v1.sampler.custom_sampler`.

Invariants:
- a masked sample has no trajectory, so it is in no group's mean, deviation or loss;
- a group with fewer valid samples than `min_valid`, or with a failed rollout, is dropped and replaced; the
  metrics of each step count them by reason;
- with `train.filter_groups` so is a group whose samples all have the same reward;
- a group that leaves the buffer, for training or dropped, is recorded once as a result of its prompt;
- a rollout gets its terminal state in the ledger when its trajectory leaves the buffer; one without a
  trajectory recorded its own;
- ready groups are trained on in order of submission, which is also the order in a batch; with `in_order` a
  group also waits for all groups submitted before it;
- `policy.admission.feeder` decides how many groups are submitted;
- waiting for a batch ends with an error when no group has ended for `stall_s` without a pause, or when more
  than `max_wasted` groups were dropped, not counting those that a provider outage masked.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from policy.admission.feeder import PromptFeeder
from policy.admission.pause import Outage, Pause
from policy.admission.window import InFlight, Window
from policy.data.prompt_results import PromptResults
from policy.ledger.entries import State
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.resume.plan import ResumePlan
from policy.train.signal import SignalFilter
from policy.train.verl_private import TRAIN, SamplerHooks
from workers.settings import QueueSettings, section

DropReason = Literal["stale", "failed", "too_few", "no_signal"]
# Why a group was dropped, and how messages say it.
DROP_REASONS: dict[DropReason, str] = {
    "stale": "stale",
    "failed": "failed",
    "too_few": "with too few valid samples",
    "no_signal": "with the same reward for all samples",
}


class _GroupSampling(SamplerHooks):
    """The common part of both samplers."""

    def __init__(self, *, sampler_kwargs: Any, **kwargs: Any):
        super().__init__(sampler_kwargs=sampler_kwargs, poll_interval=float(sampler_kwargs.poll_s), **kwargs)
        self._n = int(sampler_kwargs.n)
        self._min_valid = int(sampler_kwargs.min_valid)
        self._stall_s = float(sampler_kwargs.stall_s)
        run = Path(sampler_kwargs.run)
        self._ledger = LedgerWriter(run, "trainer")
        self._texts = CompletionStore(run)
        self._plan = ResumePlan.load(run)
        self._saves = bool(sampler_kwargs.saves)
        self._done: set[str] = set()  # groups that are trained on or dropped, but in no checkpoint yet
        self._in_order = bool(sampler_kwargs.in_order)
        self._step = 0
        self._ended: set[str] = set()
        self._ended_at = time.monotonic()
        self._max_wasted = int(sampler_kwargs.max_wasted)
        self._filter = SignalFilter(self.rewards, self._min_valid, sampler_kwargs.get("max_no_signal"))
        self._dropped: Counter[DropReason] = Counter()
        self._excused = 0  # dropped groups that a provider outage explains
        self._valid = (0, 0)  # valid samples in the last batch, and samples in all
        window = sampler_kwargs.get("window")
        queue = section("queue", QueueSettings)
        self.groups_failed: Callable[[set[str]], None] = lambda _uids: None  # set by the trainer
        self.results: PromptResults | None = None  # set by the trainer
        self._pause = Pause(Outage(**sampler_kwargs.pause), queue, self._ledger)
        self._feeder = PromptFeeder(self.refill_fn, Window(**window) if window else None, self._pause, queue)
        self.refill_fn = self._feeder.refill

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """The next batch and its metrics; verl's entry point."""
        self._step, self._ended_at = global_steps, time.monotonic()
        if partition_id != TRAIN:
            return super().sample(global_steps, partition_id, batch_size)
        if self.results is not None:
            self.results.start_step()
        stale = self._dropped["stale"]
        self._dropped.clear()
        self._excused, self._pause.spent_s = 0, 0.0
        began = time.time()
        if self._feeder.window is not None:
            self.read_queue()
            replaced, unusable = self.to_evict(global_steps)
            self._update_pause(unusable - self._without_signal())
            self._feeder.start_step(global_steps, self._in_flight_after_refills(replaced), stale)
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        self._ledger.trainer_waited(began, step=global_steps)
        pauses: dict[str, float] = {
            "outage/paused_s": round(self._pause.spent_s, 1),
            "outage/groups_excused": self._excused,
        }
        feeding = self._feeder.metrics(self._in_flight(), batch_size)
        return batch, metrics | self._validity() | feeding | pauses

    def saved(self, step: int) -> None:
        """Record that a checkpoint holds everything up to `step`: a resume needs no text of those groups."""
        self._ledger.checkpoint_saved(step=step, held=self._held())
        self._forget()

    def adjust_steps(self, steps: dict[str, int]) -> None:
        # A group with texts from before a resume is as old as the oldest of them, whenever it was submitted.
        for uid in steps.keys() & self._plan.steps.keys():
            steps[uid] = min(steps[uid], self._plan.steps[uid])

    def unusable_groups(self) -> set[str]:
        finished = self.finished_keys[TRAIN]
        members = self._members(finished)
        return {uid for uid in finished if len(members[uid]) < self._min_valid} | self._without_signal()

    def before_eviction(self, step: int, partition_id: str, stale: set[str], unusable: set[str]) -> None:
        flat = self._without_signal()
        if partition_id == TRAIN:
            self._update_pause(unusable - flat)
            self.groups_failed(unusable - flat)
        members = self._members(stale | unusable)
        self._record(stale | unusable)
        self._finish(stale | unusable)
        for uid in stale | unusable:
            if uid in self.failure_keys[TRAIN]:
                self._ledger.group_failed(uid, step=step)
                self._dropped["failed"] += 1
                continue
            why, state, text = self._drop_reason(uid, stale, flat)
            self._dropped[why] += 1
            if why == "too_few":
                self._excused += self._pause.provider_down
            if why in ("too_few", "no_signal"):
                self._ledger.group_dropped(uid, step=step, reason=why)
            for rollout_id in members[uid]:
                self._ledger.rollout_ended(rollout_id, state, reason=text, step=step)
        same = self._dropped["no_signal"]
        wasted = self._dropped.total() - same - self._excused > self._max_wasted
        if wasted or same > (self._filter.most or 0):
            counts = ", ".join(f"{count} {DROP_REASONS[why]}" for why, count in self._dropped.items())
            raise RuntimeError(f"too many groups were dropped in step {step}: {counts}; see the ledger")

    def selectable(self, ready: set[str]) -> set[str]:
        if not self._in_order:
            return ready
        return set(takewhile(ready.__contains__, self.prompt_global_steps[TRAIN]))

    def selected(self, uids: list[str]) -> None:
        members = self._members(set(uids))
        self._record(set(uids))
        self._finish(set(uids))
        self._valid = sum(map(len, members.values())), self._n * len(uids)
        for rollout_ids in members.values():
            for rollout_id in rollout_ids:
                self._ledger.rollout_ended(rollout_id, "trained", step=self._step)

    def before_poll(self, partition_id: str) -> None:
        ended = self.finished_keys[partition_id] | self.failure_keys[partition_id]
        if ended - self._ended or self._pause.on:
            self._ended_at = time.monotonic()
        self._ended = ended
        if time.monotonic() - self._ended_at > self._stall_s:
            raise TimeoutError(f"no group of rollouts has ended for {self._stall_s:.0f} s")
        if partition_id == TRAIN:
            self._feeder.poll(self._step, self._in_flight())

    def _without_signal(self) -> set[str]:
        """Finished groups that `train.filter_groups` drops."""
        return self._filter.without_signal(self.finished_keys[TRAIN])

    def _record(self, uids: set[str]) -> None:
        """Record the rewards of groups that leave the buffer, also of those that are dropped: their valid
        samples are results of the prompt too.
        """
        if self.results is not None:
            rewards = self._filter.rewards(uids)
            for uid, prompt in self.prompts(uids).items():
                self.results.record(prompt, rewards[uid])

    def _held(self) -> tuple[str, ...]:
        """Rollouts with trajectories in verl's checkpoint, or in the buffer a moment later."""
        return ()

    def _finish(self, uids: set[str]) -> None:
        """Forget the texts of groups that are trained on or dropped, once a checkpoint holds that."""
        self._done |= uids
        if not self._saves:
            self._forget()

    def _forget(self) -> None:
        self._texts.forget(self._done)
        self._done.clear()

    def _update_pause(self, unusable: set[str]) -> None:
        finished = self.finished_keys[TRAIN]
        self._feeder.update(
            usable=finished - unusable,
            unusable=finished & unusable,
            open_=self.pending_keys[TRAIN] | self.running_keys[TRAIN],
        )

    def _in_flight(self) -> InFlight:
        """As of the last poll."""
        return InFlight(
            ready=len(self.finished_keys[TRAIN]),
            open=len(self.pending_keys[TRAIN]) + len(self.running_keys[TRAIN]),
        )

    def _in_flight_after_refills(self, replaced: set[str]) -> InFlight:
        """As it will be when verl has replaced these groups."""
        now_open = self._in_flight().open
        return InFlight(ready=len(self.finished_keys[TRAIN] - replaced), open=now_open + len(replaced))

    def _validity(self) -> dict[str, int]:
        """Metrics: valid samples in the last batch, and the groups dropped before it by reason."""
        valid, total = self._valid
        dropped = {f"validity/groups_{why}": self._dropped[why] for why in DROP_REASONS}
        return {"validity/n_valid": valid, "validity/n_total": total, **dropped}

    def _members(self, uids: set[str]) -> dict[str, list[str]]:
        """The ids of the rollouts with a trajectory, by group; an empty list for every other group."""
        members: dict[str, list[str]] = defaultdict(list)
        for uid, sessions in self.sessions(uids).items():
            members[uid] = [self._plan.name(uid, session) for session in sessions]
        return members

    def _drop_reason(self, uid: str, stale: set[str], flat: set[str]) -> tuple[DropReason, State, str]:
        if uid in stale:
            return "stale", "stale", "written by weights that are too old"
        if uid in flat:
            return "no_signal", "masked", "dropped with its group, whose samples all have the same reward"
        return (
            "too_few",
            "masked",
            f"dropped with its group, which had fewer than {self._min_valid} valid samples",
        )


class GroupSamplerAsync(_GroupSampling, ReplayBufferAsync):
    """For `separate_async` and `colocate_async`, where a checkpoint holds the groups in flight."""

    def _held(self) -> tuple[str, ...]:
        self.read_queue()
        members = self._members(self.finished_keys[TRAIN])
        return tuple(rollout_id for group in members.values() for rollout_id in group)


class GroupSampler(_GroupSampling, ReplayBuffer):
    """For `sync`, where verl replaces unusable groups only if `sync_refill_failed_groups` is set."""

    def __init__(self, **kwargs: Any):
        super().__init__(sync_refill_failed_groups=True, gen_batch_size=1, **kwargs)
