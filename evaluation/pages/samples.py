"""Choose the documents of a run to show: typical early ones beside typical late ones, not the best.

Invariants: pure; the same samples give the same choice; a pair has the same prompt where the run saw it
twice, else prompts of the same kind (inputs, image count, tools); without pairs, as after a single step,
single documents are shown.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from policy.document import Document
from workers.messages import Failure


@dataclass(frozen=True)
class Sample:
    """One rollout.

    `step`: from 1; `reward`: None when infrastructure masked it; `masked_by`: the failures, of the tools or
    judges `by`; `more`: the command that shows details.
    """

    document: Document
    step: int
    reward: float | None
    breakdown: dict[str, JsonValue] = field(default_factory=dict)
    state: str = ""
    masked_by: tuple[Failure, ...] = ()
    by: tuple[str, ...] = ()
    more: str = ""

    @property
    def kind(self) -> tuple[str, int, tuple[str, ...]]:
        task = self.document.task
        return (task.data_source, task.image_num, tuple(sorted(task.tools)))


@dataclass(frozen=True)
class Pair:
    """Two documents, or a single one (`late` is None)."""

    early: Sample
    late: Sample | None = None

    @property
    def same_prompt(self) -> bool:
        return self.late is None or self.early.document.task.question == self.late.document.task.question


def typical(samples: Iterable[Sample]) -> Sample:
    """The sample nearest to the median reward; the first of equals."""
    scored = [(sample, sample.reward) for sample in samples if sample.reward is not None]
    middle = statistics.median(reward for _, reward in scored)
    return min(scored, key=lambda item: (abs(item[1] - middle), item[0].document.rollout_id))[0]


def pairs(samples: Sequence[Sample], count: int = 6, share: float = 0.2) -> list[Pair]:
    """Up to `count` pairs from the first and last `share` of the steps, spread over the kinds of prompt; as
    many single documents where there is no pair.
    """
    scored = [sample for sample in samples if sample.reward is not None]
    steps = sorted({sample.step for sample in scored})
    return (_compared(scored, steps, count, share) if len(steps) > 1 else []) or [
        Pair(typical(sample for sample in scored if sample.kind == kind))
        for kind in _spread(scored, scored)[:count]
    ]


def _compared(scored: Sequence[Sample], steps: Sequence[int], count: int, share: float) -> list[Pair]:
    width = max(1, round(len(steps) * share))
    early = [sample for sample in scored if sample.step <= steps[width - 1]]
    late = [sample for sample in scored if sample.step >= steps[-width]]
    chosen: list[Pair] = []
    for kind in _spread(early, late):
        here = [sample for sample in early if sample.kind == kind]
        there = [sample for sample in late if sample.kind == kind]
        both = {s.document.task.question for s in here} & {s.document.task.question for s in there}
        if both:
            question = min(both)
            here = [sample for sample in here if sample.document.task.question == question]
            there = [sample for sample in there if sample.document.task.question == question]
        chosen.append(Pair(typical(here), typical(there)))
        if len(chosen) == count:
            break
    return chosen


def _spread(early: Sequence[Sample], late: Sequence[Sample]) -> list[tuple[str, int, tuple[str, ...]]]:
    """The kinds seen on both sides, ordered so that neighbours require different tools."""
    by_tools: dict[tuple[str, ...], list[tuple[str, int, tuple[str, ...]]]] = defaultdict(list)
    for kind in sorted({sample.kind for sample in early} & {sample.kind for sample in late}):
        by_tools[kind[2]].append(kind)
    rows = [by_tools[tools] for tools in sorted(by_tools, key=lambda tools: (-len(tools), tools))]
    longest = max((len(row) for row in rows), default=0)
    return [row[index] for index in range(longest) for row in rows if index < len(row)]
