"""The masked samples of a run, by cause and by what failed. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from pydantic import BaseModel

from policy.ledger.masked import DROPPED, MaskedSample, masked_samples
from policy.ledger.records import Ledger

EXAMPLES = 3  # ids for each cause
SHORT = 8  # characters of a group's id


class MaskedCause(BaseModel):
    """Masked samples of one cause. `by`: what failed; `steps`: where; `examples`: ids of some samples."""

    cause: str
    by: str
    samples: int
    steps: list[int]
    examples: list[str]


class Masks(BaseModel):
    """Masked samples of a run.

    `total` of `rollouts` samples were masked by infrastructure; `dropped` more have a reward and were dropped
    with their groups. A sample with several causes counts for each of them.
    """

    run: str
    rollouts: int
    total: int
    dropped: int
    causes: list[MaskedCause]


def list_masked(ledger: Ledger, run: str) -> Masks:
    """List the causes, the most frequent first; samples dropped with their groups come last."""
    samples = masked_samples(ledger)
    found: dict[tuple[str, str], list[MaskedSample]] = defaultdict(list)
    for one in samples:
        for key in _keys(one):
            found[key].append(one)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] == DROPPED, -len(item[1]), item[0]))
    dropped = sum(one.dropped for one in samples)
    return Masks(
        run=run,
        rollouts=len(ledger.rollouts),
        total=len(samples) - dropped,
        dropped=dropped,
        causes=[
            MaskedCause(
                cause=cause,
                by=by,
                samples=len(ones),
                steps=sorted({one.step for one in ones}),
                examples=[one.rollout.rollout_id for one in ones[:EXAMPLES]],
            )
            for (cause, by), ones in ordered
        ],
    )


def in_ranges(numbers: Iterable[int], most: int = 8) -> str:
    """Format numbers as ranges, such as `1–4, 7`; at most `most` of them."""
    ordered = sorted(set(numbers))
    runs = [
        [number for _, number in part]
        for _, part in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
    ]
    words = [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def counts_in_words(masked: int, causes: Mapping[str, int], dropped: int) -> str:
    """Format as `3 (2 timeout, 1 quota), 1 dropped with their groups`.

    `masked`: samples masked by infrastructure; `causes`: count of each cause; `dropped`: samples dropped with
    their groups.
    """
    by_cause = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in causes.items() if count)
    words = f"{masked:,}" + (f" ({by_cause})" if by_cause else "")
    return words + (f", {dropped:,} dropped with their groups" if dropped else "")


def short_id(rollout_id: str) -> str:
    """A shorter id that `llmi why` accepts: the start of the group's id, and the sibling."""
    group, _, sibling = rollout_id.rpartition("_")
    return f"{group[:SHORT]}_{sibling}" if group else rollout_id


def _keys(one: MaskedSample) -> Sequence[tuple[str, str]]:
    """Distinct pairs of cause and what failed."""
    named = [(reason.failure.cause.value, reason.by) for reason in one.reasons]
    return list(dict.fromkeys(named)) or [(cause, "") for cause in one.causes]
