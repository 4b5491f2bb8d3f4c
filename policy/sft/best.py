"""The best documents of runs, from their ledgers. Pure.

A document is taken when its text is whole, all its tags are valid, and it has a reward: a sample that was
masked by infrastructure has none. One that was dropped only with its group has one, and is taken.

Invariants:
- the same ledgers give the same documents in the same order, the best first;
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

Chat = tuple[tuple[str, str], ...]  # role and text of each message


def scored(ledger: Ledger, rows: Iterable[Row], system: str) -> Selection:
    """The documents of a run that can be trained on. `rows`: of its data files. `system`: the system prompt,
    or empty.
    """
    prompts = _prompts(rows)
    left_out: Counter[str] = Counter()
    found = []
    for name, rollout in sorted(ledger.rollouts.items()):
        if why := _refused(rollout, prompts):
            left_out[why] += 1
            continue
        assert rollout.document is not None
        row = prompts[_key(rollout.document.task)]
        assert row is not None
        found.append(Example(tuple(row.chat(system)), text_of(rollout.document), rollout.reward, name))
    return Selection(tuple(found), left_out)


def best(found: Selection, sft: SftSettings) -> Selection:
    """Choose from the documents of all sources. Those without a reward, which are conversations of files,
    come last.
    """
    left_out = found.left_out.copy()
    rewards = [(one.reward, one) for one in found.examples if one.reward is not None]
    above = [(reward, one) for reward, one in rewards if reward >= sft.min_reward]
    left_out[BELOW] += len(rewards) - len(above)
    ranked = [one for _, one in sorted(above, key=lambda pair: -pair[0])]
    top = ranked[: math.ceil(sft.top * len(ranked))]
    left_out[NOT_TOP] += len(ranked) - len(top)
    limited = [*top, *(one for one in found.examples if one.reward is None)]
    chosen = _limited(limited, sft.per_prompt)
    left_out[REPEATED] += len(limited) - len(chosen)
    return Selection(tuple(chosen), +left_out)


def text_of(document: Document) -> str:
    """The document as the model wrote it, but for its thoughts, which are not part of a document, and the
    blank lines that follow the first.
    """
    parts = (part.text if isinstance(part, TextPart) else part.raw for part in document.parts)
    return "".join(parts).lstrip("\n")


def _refused(rollout: RolloutRecord, prompts: dict[str, Row | None]) -> str:
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
    return OTHER_PROMPT if prompts.get(_key(document.task)) is None else ""


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
    """At most so many of each prompt, among those with a reward, and none twice."""
    taken: Counter[Chat] = Counter()
    seen: set[tuple[Chat, str]] = set()
    chosen = []
    for example in ranked:
        prompt = tuple((message["role"], message["content"]) for message in example.messages)
        full = example.reward is not None and taken[prompt] >= per_prompt
        if not full and (prompt, example.text) not in seen:
            taken[prompt] += 1
            seen.add((prompt, example.text))
            chosen.append(example)
    return chosen
