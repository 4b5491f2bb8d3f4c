"""Whatever moment a run dies at, and however often: each sample trains once, nothing is asked for twice, and
every rollout ends once. The run is a model of verl's that writes real entries; plan and merge are real."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.state.resume import entries
from policy.document import Document, Task
from policy.ledger.entries import (
    Broken,
    Closed,
    Ended,
    Entry,
    GroupFailed,
    Posted,
    Resumed,
    Saved,
    Scored,
    Started,
    Waited,
    Wrote,
)
from policy.ledger.merge import apply_group_failures, merge
from policy.ledger.records import Ledger
from policy.resume.completions import Completion, CompletionSegment, CompletionStore
from policy.resume.plan import ResumePlan, effective_versions, plan_resume, slot_of
from policy.resume.state import ResumeState
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, Success

TASK = Task(question="q")
SIBLINGS, WINDOW, STEPS, SAVE_EVERY, ALLOWED = 2, 3, 5, 2, 3


def merged(written: list[Entry]) -> Ledger:
    ledger = Ledger()
    for entry in written:
        merge(ledger, entry)
    apply_group_failures(ledger)
    return ledger


@dataclass
class Group:
    step: int
    ended: dict[int, str] = field(default_factory=dict)  # sibling -> trajectory, masked or broken


@dataclass
class World:
    """What outlives a run's processes: ledger, texts, checkpoint, queue."""

    chance: random.Random
    written: list[Entry] = field(default_factory=list)
    texts: dict[str, Completion] = field(default_factory=dict)
    checkpoints: list[tuple[int, int, dict[str, Group]]] = field(default_factory=lambda: [(0, 0, {})])
    asked: Counter[str] = field(default_factory=Counter)
    queue: set[str] = field(default_factory=set)
    resumption: ResumePlan = field(default_factory=ResumePlan)
    continued: dict[str, ResumeState] = field(default_factory=dict)

    def say(self, kind: type[Any], **fields: Any) -> None:
        self.written.append(kind(time=float(len(self.written) + 1), **fields))

    def life(self) -> Iterator[None]:
        """One life of the run; it may die wherever this yields."""
        step, prompts, groups = copy.deepcopy(self.checkpoints[-1])
        for group in groups.values():
            if len(group.ended) < SIBLINGS:  # verl begins these again
                group.ended.clear()
                group.step = step + 1
        siblings: dict[tuple[str, int], Iterator[None]] = {}
        done: set[str] = set()  # since the last checkpoint
        while step < STEPS:
            while len(groups) < WINDOW:
                groups[f"g{prompts}"] = Group(step + 1)
                prompts += 1
            for uid, session in itertools.product(groups, range(SIBLINGS)):
                if session not in groups[uid].ended and (uid, session) not in siblings:
                    siblings[uid, session] = self.rollout(uid, session, groups[uid], step)
            if siblings:
                chosen = self.chance.choice(sorted(siblings))
                if next(siblings[chosen], "over") == "over":
                    del siblings[chosen]
            yield
            if self.chance.random() < 0.8:
                continue  # the trainer is busy, and groups that have ended wait
            for uid in [uid for uid, group in groups.items() if len(group.ended) == SIBLINGS]:
                done.add(uid)
                if self.sample(uid, groups.pop(uid), step + 1):
                    step += 1
                    yield
                    if step % SAVE_EVERY == 0:
                        self.checkpoints.append(copy.deepcopy((step, prompts, groups)))
                        yield
                        self.saved()
                        self.texts = {n: t for n, t in self.texts.items() if n.partition("_")[0] not in done}
                        done.clear()
                    break
                yield

    def rollout(self, uid: str, session: int, group: Group, step: int) -> Iterator[None]:
        name = self.resumption.name(uid, session)
        going_on = self.continued.get(name)
        if name in self.resumption.masked:
            group.ended[session] = "masked"
            return
        if going_on is None:
            self.say(Started, rollout_id=name, task=TASK, step=step + 1)
            yield
            if self.chance.random() < 0.05:
                self.say(Broken, rollout_id=name, reason="no luck")
                group.ended[session] = "broken"
                return
            piece = CompletionSegment.of([1], [-1.0], (step, step))
            self.texts[name] = Completion(time=float(len(self.written)), pieces=(piece,))
            yield
            self.say(Wrote, rollout_id=name, segments=())
            yield
        assert name in self.texts
        if going_on is None or going_on.score is None:
            yield from self.score(name, going_on)
            if self.chance.random() < 0.1:
                failure = Failure(cause=Cause.QUOTA)
                score = Score(reward=None, masked_by=(failure,))
            else:
                score = Score(reward=0.5)
            document = Document(rollout_id=name, task=TASK, parts=())
            self.say(Scored, document=document, score=score, tokens=1, versions=(step, step))
            yield
            if score.reward is None:
                self.say(Closed, rollout_id=name, state="masked")
                group.ended[session] = "masked"
                return
        group.ended[session] = "trajectory"

    def score(self, name: str, going_on: Any) -> Iterator[None]:
        known = {outcome.request_id for outcome in going_on.outcomes} if going_on else set()
        for request_id in (f"{name}-0", f"{name}.judge_text"):
            if request_id in known:
                continue
            request = Request(request_id=request_id, kind="search", payload={}, deadline=1e9, owner=name)
            if request_id not in self.queue:
                self.queue.add(request_id)
                self.asked[request_id] += 1
            yield
            self.say(Posted, request=request)
            yield
            self.say(Ended, outcome=Outcome(request_id=request_id, kind="search", result=Success()))
            yield

    def sample(self, uid: str, group: Group, step: int) -> bool:
        """Whether the group was trained on."""
        names = [
            self.resumption.name(uid, session) for session, end in group.ended.items() if end == "trajectory"
        ]
        if "broken" in group.ended.values():
            self.say(GroupFailed, uid=uid, step=step)
            return False
        began = min(group.step, self.resumption.steps.get(uid, group.step))
        stale = step - began + 1 > ALLOWED
        for name in names:
            self.say(Closed, rollout_id=name, state="stale" if stale else "trained", step=step)
        if names and not stale:
            self.say(Waited, began=0.0, step=step)
        return bool(names) and not stale

    def saved(self) -> None:
        """Word of the last checkpoint."""
        step, _prompts, groups = self.checkpoints[-1]
        ended = [(uid, group.ended) for uid, group in groups.items() if len(group.ended) == SIBLINGS]
        held = [
            self.resumption.name(uid, session)
            for uid, ends in ended
            for session, end in ends.items()
            if end == "trajectory"
        ]
        self.say(Saved, step=step, held=tuple(held))

    def resume(self) -> None:
        ledger = merged(self.written)
        if len(self.checkpoints) > 1 and self.checkpoints[-1][0] not in ledger.saved:
            self.saved()  # it died between the files and the word of them
        elif len(self.checkpoints) > 1 and self.chance.random() < 0.2:
            self.checkpoints.pop()  # its files are gone, and with the word of it so are texts from before
        self.say(Resumed, step=self.checkpoints[-1][0])
        decided = plan_resume(merged(self.written), self.texts.get, allowed=ALLOWED)
        self.written += entries(decided, float(len(self.written) + 1))
        self.resumption, self.continued = decided.resumption, decided.continued

    def stop(self) -> None:
        """An orderly end: what is open is cancelled."""
        ledger = merged(self.written)
        for rollout in ledger.open:
            self.say(Closed, rollout_id=rollout.rollout_id, state="cancelled", reason="the run ended")
        for record in ledger.pending:
            failure = Failure(cause=Cause.CANCELLED)
            outcome = Outcome(request_id=record.request.request_id, kind="search", result=failure)
            self.say(Ended, outcome=outcome)


lives = st.lists(st.tuples(st.integers(1, 150), st.booleans()), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), lives)
def test_a_run_may_die_at_any_moment_and_as_often_as_it_likes(seed, deaths):
    world = World(random.Random(seed))
    for moments, in_order in deaths:
        for _ in itertools.islice(world.life(), moments):
            pass
        if in_order:
            world.stop()
        world.resume()
    for _ in world.life():
        pass
    world.stop()
    ledger = merged(world.written)
    assert ledger.violations == []
    assert ledger.open == ledger.pending == []
    trained = [rollout for rollout in ledger.rollouts.values() if rollout.state == "trained"]
    assert all(rollout.task is not None and rollout.reward is not None for rollout in trained)
    places = Counter(slot_of(rollout.rollout_id) for rollout in trained)
    assert set(places.values()) == {1}
    by_step = {step: {r.uid for r in trained if r.step == step} for step in range(1, STEPS + 1)}
    assert all(len(uids) == 1 for uids in by_step.values())
    assert len(set().union(*by_step.values())) == STEPS
    assert max(world.asked.values()) == 1
    assert [wait.step for wait in ledger.waits] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("versions", "cut", "place_on_branch"),
    [
        ((3, 4), (5,), (3, 4)),  # written before the checkpoint
        ((5, 5), (5,), (5, 5)),
        ((7, 7), (5,), (3, 3)),  # two updates beyond it: two back, by way of the checkpoint
        ((4, 7), (5,), (3, 5)),
        ((7, 7), (5, 9), (3, 3)),  # what was cut off once stays so, however far the run is by now
        ((2, 2), (0,), (-2, -2)),
    ],
)
def test_weights_that_are_gone_are_as_old_as_the_way_back_from_them(versions, cut, place_on_branch):
    assert effective_versions(versions, cut) == place_on_branch


def dead(*later: Entry) -> Ledger:
    """A rollout whose text is complete, of a run that saved step 2."""
    asked = Request(request_id="u_0-0", kind="search", payload={}, deadline=1e9, owner="u_0")
    return merged([
        Started(time=1, rollout_id="u_0", task=TASK, step=3),
        Wrote(time=2, rollout_id="u_0", segments=()),
        Posted(time=3, request=asked),
        *later,
        Resumed(time=20, step=2),
    ])  # fmt: skip


def text(*versions: tuple[int, int]) -> Completion:
    return Completion(
        time=2.0, pieces=tuple(CompletionSegment.of([1], [-1.0], version) for version in versions)
    )


def test_a_complete_text_goes_on_and_its_open_request_is_no_orphan():
    decided = plan_resume(dead(), lambda name: text((2, 2)), allowed=4)
    assert decided.resumption.continued == decided.continued.keys() == {"u_0"}
    assert decided.resumption.steps == {"u": 3}
    assert (decided.abandoned, decided.orphans) == ({}, ())
    assert decided.resumption.name("u", 0) == "u_0"


def test_half_a_text_is_begun_anew_under_another_id_and_its_request_is_an_orphan():
    decided = plan_resume(dead(), lambda name: None, allowed=4)
    assert decided.resumption.continued == decided.continued.keys() == set()
    assert list(decided.abandoned) == ["u_0"]
    assert [request.request_id for request in decided.orphans] == ["u_0-0"]
    assert decided.resumption.name("u", 0) == "u_0.1"


def test_a_text_that_is_too_old_to_be_trained_on_is_begun_anew():
    ledger = dead()
    assert plan_resume(ledger, lambda name: text((0, 2)), allowed=3).abandoned == {}
    assert list(plan_resume(ledger, lambda name: text((0, 2)), allowed=2).abandoned) == ["u_0"]
    assert list(plan_resume(ledger, lambda name: text((4, 4)), allowed=2).abandoned) == ["u_0"]


def test_a_document_that_has_its_score_brings_it_along():
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=0.25), tokens=1, versions=(2, 2))
    trained = Closed(time=6, rollout_id="u_0", state="trained", step=3)
    decided = plan_resume(dead(scored, trained), lambda name: text((2, 2)), allowed=1)
    [continued] = decided.continued.values()
    assert (continued.document, continued.score) == (document, Score(reward=0.25))


def test_a_score_of_weights_that_are_gone_is_brought_along_only_while_it_is_young_enough():
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=0.25), tokens=1, versions=(4, 4))
    trained = Closed(time=6, rollout_id="u_0", state="trained", step=5)
    ledger = dead(scored, trained)
    assert plan_resume(ledger, lambda name: text((4, 4)), allowed=3).abandoned == {}
    assert list(plan_resume(ledger, lambda name: text((4, 4)), allowed=2).abandoned) == ["u_0"]


@pytest.mark.parametrize("lost", [None, text((0, 2))], ids=["gone", "too old"])
def test_what_verl_has_in_its_checkpoint_keeps_its_id_whatever_became_of_its_text(lost):
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=0.25), tokens=1, versions=(2, 2))
    trained = Closed(time=8, rollout_id="u_0", state="trained", step=3)
    ledger = dead(scored, Resumed(time=6, step=1), Saved(time=7, step=2, held=("u_0",)), trained)
    decided = plan_resume(ledger, lambda name: lost, allowed=1)
    assert decided.abandoned == {}
    assert decided.resumption.name("u", 0) == "u_0"


def test_of_groups_that_the_checkpoint_is_done_with_nothing_is_kept():
    other = Started(time=3, rollout_id="u_1.1", task=TASK, step=2)
    masked = Closed(time=5, rollout_id="u_1.1", state="masked")
    trained = Closed(time=6, rollout_id="u_0", state="trained", step=2)
    assert plan_resume(dead(other, masked, trained), lambda name: None, allowed=4).resumption == ResumePlan(
        step=2
    )
    assert plan_resume(dead(other, masked), lambda name: None, allowed=4).resumption.masked == {"u_1.1"}


def test_what_the_checkpoint_holds_stays_as_it_was():
    trained = Closed(time=6, rollout_id="u_0", state="trained", step=2)
    decided = plan_resume(dead(trained), lambda name: text((2, 2)), allowed=4)
    assert decided.resumption == ResumePlan(step=2)
    assert [request.request_id for request in decided.orphans] == ["u_0-0"]


def test_a_masked_score_whose_state_was_not_written_is_masked():
    failure = Failure(cause=Cause.QUOTA)
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=None, masked_by=(failure,)), tokens=1)
    decided = plan_resume(dead(scored), lambda name: text((2, 2)), allowed=4)
    assert decided.masked == {"u_0": "quota"}
    assert decided.resumption.masked == {"u_0"}


def test_a_plan_is_read_as_it_was_written(tmp_path):
    assert ResumePlan.load(tmp_path) == ResumePlan()
    decided = plan_resume(dead(), lambda name: text((2, 2)), allowed=4)
    decided.resumption.save(tmp_path)
    decided.continued["u_0"].save(tmp_path, "u_0")
    assert ResumePlan.load(tmp_path) == decided.resumption
    assert ResumeState.load(tmp_path, "u_0") == decided.continued["u_0"]
    CompletionStore(tmp_path).forget({"u"})
    with pytest.raises(FileNotFoundError):
        ResumeState.load(tmp_path, "u_0")
