"""The documents of a step are found in the ledger while it is written."""

from __future__ import annotations

import pytest
from rewards_documents import P, document

from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from policy.tracking.trained import TrainedDocuments, spread


@pytest.fixture
def writers(tmp_path):
    """One of a rollout process, one of the trainer."""
    made = LedgerWriter(tmp_path, "rollout"), LedgerWriter(tmp_path, "trainer")
    yield made
    for writer in made:
        writer.close()


def score(writer, name, reward):
    writer.scored(document(P(name), rollout_id=name), Score(reward=reward), tokens=3)


def names(documents):
    return [entry.document.rollout_id for entry in documents]


def test_the_documents_of_a_step_in_order_of_reward(tmp_path, writers):
    rollout, trainer = writers
    score(rollout, "before", 0.9)
    found = TrainedDocuments(tmp_path)
    for name, reward in {"a": 0.8, "b": 0.1, "c": 0.5, "d": 0.2, "late": 0.4}.items():
        score(rollout, name, reward)
    trainer.rollout_ended("before", "trained", step=1)
    trainer.rollout_ended("a", "trained", step=1)
    trainer.rollout_ended("b", "trained", step=2)
    trainer.rollout_ended("c", "trained", step=2)
    trainer.rollout_ended("d", "stale", step=2)
    trainer.rollout_ended("late", "trained", step=3)  # the trainer is ahead
    assert names(found.of(2)) == ["b", "c"]
    assert names(found.of(3)) == ["late"]
    assert names(found.of(3)) == []


def test_an_incomplete_line_is_read_when_it_is_complete(tmp_path, writers):
    rollout, trainer = writers
    found = TrainedDocuments(tmp_path)
    score(rollout, "a", 0.8)
    path = next((tmp_path / "ledger").glob("rollout-*.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert found.of(1) == []
    path.write_bytes(whole)
    trainer.rollout_ended("a", "trained", step=2)
    assert names(found.of(2)) == ["a"]


@pytest.mark.parametrize(
    ("many", "shown"), [(0, []), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (10, [0, 3, 6, 9]), (5, [0, 1, 3, 4])]
)
def test_some_are_chosen_from_the_lowest_to_the_highest(many, shown):
    assert spread(list(range(many)), 4) == shown
