"""The best documents of a run, from its ledger. Pure.

A document is taken when its text is whole, all its tags are valid, and it has a reward: a sample that was
masked by infrastructure has none. One that was dropped only with its group has one, and is taken.

Invariants:
- the same ledger gives the same documents in the same order, the best first;
- documents of evaluations (`Ledger.evaluated`) are never taken;
- a prompt is that of the data file, since the ledger has the question alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from policy.data.dataset import Row
from policy.document import Document, InvalidPart, Task, TextPart
from policy.ledger.records import Ledger, RolloutRecord
from policy.sft.examples import INVALID_TAG, Example, Selection
from policy.sft.settings import SftSettings

NOT_SCORED = "without a reward (masked, or not finished)"
CUT = "cut off by their limit of tokens or time"
PICTURED = "with input images"
OTHER_PROMPT = "with a prompt that data.train of the run does not have"
BELOW = "with a reward below sft.min_reward"
NOT_TOP = "not in the share sft.top"
REPEATED = "of a prompt with sft.per_prompt better ones, or with the same text"


def best(ledger: Ledger, rows: Iterable[Row], sft: SftSettings, system: str) -> Selection:
    """Choose from the ledger of a run. `rows`: of its data files. `system`: the system prompt, or empty."""
    prompts = _prompts(rows)
    left_out: Counter[str] = Counter()
    found: list[tuple[float, str, Example]] = []
    for rollout in ledger.rollouts.values():
        if why := _refused(rollout, prompts, sft):
            left_out[why] += 1
            continue
        assert rollout.document is not None
        assert rollout.reward is not None
        row = prompts[_key(rollout.document.task)]
        assert row is not None
        example = Example(
            tuple(row.chat(system)), text_of(rollout.document), rollout.reward, rollout.rollout_id
        )
        found.append((-rollout.reward, rollout.rollout_id, example))
    ranked = [example for *_, example in sorted(found, key=lambda one: one[:2])]
    top = ranked[: math.ceil(sft.top * len(ranked))]
    left_out[NOT_TOP] += len(ranked) - len(top)
    chosen = _limited(top, sft.per_prompt)
    left_out[REPEATED] += len(top) - len(chosen)
    return Selection(tuple(chosen), +left_out)


def text_of(document: Document) -> str:
    """The document as the model wrote it, but for its thoughts, which are not part of a document."""
    return "".join(part.text if isinstance(part, TextPart) else part.raw for part in document.parts)


def _refused(rollout: RolloutRecord, prompts: dict[str, Row | None], sft: SftSettings) -> str:
    """Why a rollout is left out; empty for one that is taken."""
    document = rollout.document
    if document is None or rollout.reward is None:
        return NOT_SCORED
    if document.task.inputs:
        return PICTURED
    if document.truncated or document.out_of_time:
        return CUT
    if any(isinstance(part, InvalidPart) for part in document.parts) or not text_of(document).strip():
        return INVALID_TAG
    if prompts.get(_key(document.task)) is None:
        return OTHER_PROMPT
    return BELOW if rollout.reward < sft.min_reward else ""


def _prompts(rows: Iterable[Row]) -> dict[str, Row | None]:
    """Rows by their task; None where rows with the same task have different chats."""
    found: dict[str, Row | None] = {}
    for row in rows:
        key = _key(row.task())
        known = found.setdefault(key, row)
        if known is None or known.messages != row.messages:
            found[key] = None
    return found


def _key(task: Task) -> str:
    return task.model_dump_json(exclude={"inputs"})


def _limited(ranked: list[Example], per_prompt: int) -> list[Example]:
    """At most so many of each prompt, and none twice."""
    taken: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    chosen = []
    for example in ranked:
        prompt = repr(example.messages)
        if taken[prompt] < per_prompt and (prompt, example.text) not in seen:
            taken[prompt] += 1
            seen.add((prompt, example.text))
            chosen.append(example)
    return chosen
