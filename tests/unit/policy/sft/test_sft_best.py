"""Which documents of a run are trained on."""

from __future__ import annotations

from collections import Counter

import pytest

from policy.data.dataset import Row
from policy.document import Document
from policy.grammar.tags import read
from policy.ledger.records import Ledger, RolloutRecord
from policy.scoring import Score
from policy.sft import best as reasons
from policy.sft.best import best, scored
from policy.sft.examples import INVALID_TAG, Example, Selection
from policy.sft.settings import SftSettings
from workers.errors import Cause
from workers.messages import BlobRef, Failure

TAG = "<imgen>{'source': 'search', 'description': 'a cat', 'params': {'query': 'cat'}}</imgen>"
WRONG = "<imgen>{'source': 'search'}</imgen>"


def row(question: str, prompt: str = "") -> Row:
    messages = [{"role": "user", "content": prompt or question}]
    return Row(0, messages, question, 1, ("search",), "train", "interleaved")


IMAGE = BlobRef(sha256="0" * 64, media_type="image/png", size=1, width=1, height=1)
ROWS = [row("one"), row("two"), row("three")]


def rollout(name: str, reward: float | None, text: str, question: str = "one", **document) -> RolloutRecord:
    task = document.pop("task", None) or row(question).task()
    failure = Failure(cause=Cause.TIMEOUT, detail="late")
    score = Score(reward=reward) if reward is not None else Score(reward=None, masked_by=(failure,))
    parts = read(text, inputs=len(task.inputs))
    return RolloutRecord(
        rollout_id=name,
        document=Document(rollout_id=name, task=task, parts=parts, **document),
        score=score,
    )


def chosen(rollouts, sft=None, rows=ROWS, system=""):
    found = scored(Ledger(rollouts={one.rollout_id: one for one in rollouts}), rows, system)
    return best(found, sft or SftSettings())


def names(rollouts, **sft) -> list[str]:
    return [one.rollout_id for one in chosen(rollouts, SftSettings(**sft)).examples]


def test_a_document_is_taken_as_it_was_written():
    text = f"A cat.\n{TAG}\nIt sleeps. <image>"
    [example] = chosen([rollout("a_0", 0.5, text)]).examples
    assert example.text == text
    assert (example.reward, example.rollout_id) == (0.5, "a_0")


def test_a_document_starts_after_its_thought_and_the_blank_lines():
    [example] = chosen([rollout("a_0", 0.5, f"<think>A cat?</think>\n\n{TAG}\n\nA cat.\n")]).examples
    assert example.text == f"{TAG}\n\nA cat.\n"
    [example] = chosen([rollout("a_0", 0.5, "<think>A cat?</think>\n\n  A cat.")]).examples
    assert example.text == "  A cat."


def test_the_prompt_is_that_of_the_data_file_after_the_system_prompt():
    """The ledger has the question alone, which may differ from the prompt."""
    found = chosen([rollout("a_0", 0.5, "words")], rows=[row("one", "Please write: one")], system="Draw.")
    assert found.examples[0].messages == (
        {"role": "system", "content": "Draw."},
        {"role": "user", "content": "Please write: one"},
    )


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (rollout("a_0", None, "words"), reasons.NOT_SCORED),
        (RolloutRecord("a_0"), reasons.NOT_SCORED),
        (rollout("a_0", 0.9, "words", truncated=True), reasons.CUT),
        (rollout("a_0", 0.9, "words", out_of_time=True), reasons.CUT),
        (rollout("a_0", 0.9, f"words {WRONG}"), INVALID_TAG),
        (rollout("a_0", 0.9, "words", question="of a test file"), reasons.OTHER_PROMPT),
        (rollout("a_0", 0.1, "words"), reasons.BELOW),
        (
            rollout(
                "a_0",
                0.9,
                "words",
                task=row("one").task([IMAGE]),
            ),
            reasons.PICTURED,
        ),
    ],
    ids=["masked", "unfinished", "truncated", "out of time", "invalid tag", "prompt", "reward", "images"],
)
def test_what_is_left_out(record, why):
    found = chosen([record], SftSettings(min_reward=0.2))
    assert (found.examples, dict(found.left_out)) == ((), {why: 1})


def test_one_that_was_dropped_only_with_its_group_is_taken():
    record = rollout("a_0", 1.0, "words")
    record.state = "masked"
    assert names_of(chosen([record])) == ["a_0"]


def names_of(found) -> list[str]:
    return [one.rollout_id for one in found.examples]


def test_the_best_of_a_prompt_come_first_and_ties_by_name():
    documents = [
        rollout("a_0", 0.3, "first"), rollout("a_1", 0.8, "second"), rollout("a_2", 0.6, "third"),
        rollout("b_0", 0.8, "fourth", "two"), rollout("c_0", 0.1, "fifth", "three"),
    ]  # fmt: skip
    assert names(documents) == names(documents[::-1]) == ["a_1", "b_0", "c_0"]
    assert names(documents, per_prompt=2) == ["a_1", "b_0", "a_2", "c_0"]
    assert names(documents, min_reward=0.5, per_prompt=9) == ["a_1", "b_0", "a_2"]
    assert names(documents, top=0.4) == ["a_1", "b_0"]
    assert names(documents, top=0.01) == ["a_1"]


def test_documents_of_evaluations_are_not_taken():
    evaluated = rollout("eval-0_0", 1.0, "words")
    ledger = Ledger(evaluated={evaluated.rollout_id: evaluated})
    assert scored(ledger, ROWS, "") == Selection((), Counter())


def test_the_same_text_is_not_taken_twice_for_a_prompt():
    documents = [rollout("a_0", 0.8, "same"), rollout("a_1", 0.8, "same"), rollout("b_0", 0.8, "same", "two")]
    found = chosen(documents, SftSettings(per_prompt=9))
    assert names_of(found) == ["a_0", "b_0"]
    assert dict(found.left_out) == {reasons.REPEATED: 1}


def test_rows_with_one_task_and_two_prompts_give_none():
    """Which of the two a document answers is not known."""
    found = chosen([rollout("a_0", 0.5, "words")], rows=[row("one", "Do."), row("one", "Do not.")])
    assert dict(found.left_out) == {reasons.OTHER_PROMPT: 1}


def test_the_documents_of_all_sources_are_chosen_together():
    """The last two, which have no reward, are conversations of a file."""
    turns = ({"role": "user", "content": "one"},)
    reordered = ({"content": "one", "role": "user"},)
    examples = (
        Example(turns, "first run", 0.6, "a_0"),
        Example(turns, "both runs", 0.7, "a_1"),
        Example(reordered, "both runs", 0.7, "a_1"),
        Example(turns, "second run", 0.8, "b_0"),
        Example(turns, "spoken"),
        Example(turns, "spoken"),
    )
    found = best(Selection(examples, Counter()), SftSettings(per_prompt=2))
    assert [one.text for one in found.examples] == ["second run", "both runs", "spoken"]
    assert dict(found.left_out) == {reasons.REPEATED: 3}
    found = best(Selection(examples, Counter()), SftSettings(min_reward=0.75))
    assert [one.text for one in found.examples] == ["second run", "spoken"]
    found = best(Selection(examples, Counter()), SftSettings(top=0.25))
    assert [one.text for one in found.examples] == ["second run", "spoken"]
