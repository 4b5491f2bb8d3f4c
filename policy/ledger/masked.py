"""The masked samples of a run, with reasons and steps, from its ledger. Pure functions, no I/O.

A sample is `masked` for one of two reasons: infrastructure failed for it, and its score names the failures;
or it has a reward, and its group was dropped because it had too few valid samples or no signal.

Invariant: a masked sample counts for exactly one of the two.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from policy.ledger.entries import RolloutEnded
from policy.ledger.records import Ledger, RolloutRecord
from workers.errors import Cause
from workers.messages import Failure

DROPPED = "dropped_with_group"  # counted besides the causes of infrastructure failures
UNKNOWN = "unknown"
ROLLOUT = "rollout"

FailedRequests = dict[str, list[tuple[Failure, str]]]  # by owner: the failure, and the request's kind


@dataclass(frozen=True)
class MaskReason:
    """One failure that masks a sample.

    `by`: the tool or judge that failed, else the provider, else `rollout`.
    """

    failure: Failure
    by: str


@dataclass(frozen=True)
class MaskedSample:
    """A masked sample.

    `reasons`: empty for one that was dropped with its group. `step`: the trainer's step in which its group
    was trained on or dropped, else the step that submitted it.
    """

    rollout: RolloutRecord
    reasons: tuple[MaskReason, ...]
    step: int

    @property
    def dropped(self) -> bool:
        """Whether it has a reward and was dropped with its group."""
        return self.rollout.reward is not None

    @property
    def causes(self) -> tuple[str, ...]:
        """Its causes without duplicates, in order; at least one."""
        if self.dropped:
            return (DROPPED,)
        return tuple(dict.fromkeys(reason.failure.cause.value for reason in self.reasons)) or (UNKNOWN,)


def masked_samples(ledger: Ledger) -> list[MaskedSample]:
    """All masked samples, sorted by step and id."""
    steps, requests = group_steps(ledger), failed_requests(ledger)
    found = [
        MaskedSample(
            rollout, mask_reasons(requests, rollout), steps.get(rollout.uid) or rollout.submitted_step
        )
        for rollout in ledger.rollouts.values()
        if rollout.state == "masked"
    ]
    return sorted(found, key=lambda one: (one.step, one.rollout.rollout_id))


def group_steps(ledger: Ledger) -> dict[str, int]:
    """The trainer's step in which each group was trained on or dropped."""
    steps = {uid: drop.step for uid, drop in ledger.dropped.items()}
    steps |= {uid: failure.step for uid, failure in ledger.failed.items()}
    return steps | {rollout.uid: rollout.step for rollout in ledger.rollouts.values() if rollout.step}


def failed_requests(ledger: Ledger) -> FailedRequests:
    """All failed requests of the run, by owner."""
    failed: FailedRequests = defaultdict(list)
    for record in ledger.requests.values():
        if record.failure is not None:
            failed[record.request.owner].append((record.failure, record.request.kind))
    return failed


def mask_reasons(requests: FailedRequests, rollout: RolloutRecord) -> tuple[MaskReason, ...]:
    """The failures that mask a rollout, each with the tool or judge that failed; empty when none does."""
    if rollout.score is None:
        return ()
    by: list[tuple[Failure, str]] = []
    if rollout.document is not None:
        by = [(part.failure, part.tag.source) for part in rollout.document.images if part.failure]
    by += requests.get(rollout.rollout_id, [])
    return tuple(_reason(failure, by) for failure in rollout.score.masked_by)


def _reason(failure: Failure, by: list[tuple[Failure, str]]) -> MaskReason:
    """Remove the match from `by`, so that equal failures of two requests name both."""
    for index, (known, kind) in enumerate(by):
        if known == failure:
            del by[index]
            return MaskReason(failure, kind)
    return MaskReason(failure, failure.provider or ROLLOUT)


def by_cause(samples: Sequence[MaskedSample]) -> dict[str, int]:
    """Samples that infrastructure failures masked, by cause, the most frequent first.

    A sample with several causes counts for each.
    """
    counts = Counter(cause for one in samples if not one.dropped for cause in one.causes)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def by_step(samples: Sequence[MaskedSample], *, dropped: bool = False) -> dict[int, int]:
    """Samples that infrastructure failures masked, by step; or those `dropped` with their groups."""
    return dict(sorted(Counter(one.step for one in samples if one.dropped is dropped).items()))


def causes_of(entry: RolloutEnded) -> tuple[str, ...]:
    """The same causes, from the entry that masked a sample; for readers that keep no rollouts."""
    if entry.step:  # only the trainer records a step; a rollout that is masked in the agent loop has none
        return (DROPPED,)
    known = {cause.value for cause in Cause}
    return tuple(word for word in entry.reason.split(", ") if word in known) or (UNKNOWN,)
