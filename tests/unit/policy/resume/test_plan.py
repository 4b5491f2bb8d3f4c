"""A run killed at any moment, any number of times: each sample trains once, no request is made twice, and
every rollout has one terminal state. verl is simulated and writes real entries; planning and merging are
real.
"""

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
    CheckpointSaved,
    Entry,
    GroupFailed,
    Posted,
    RequestEnded,
    Resumed,
    RolloutEnded,
    RolloutRaised,
    Scored,
    Started,
    TextGenerated,
    TrainerWaited,
)
from policy.ledger.merge import apply_group_failures, merge
from policy.ledger.records import Ledger
from policy.resume.completions import Completion, CompletionSegment, CompletionStore
from policy.resume.plan import ResumePlan, effective_versions, plan_resume
from policy.resume.slots import group_of, slot_of
from policy.resume.state import ResumeState
from policy.scoring import Score
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, Success

TASK = Task(question="q")
SIBLINGS, WINDOW, STEPS, SAVE_EVERY, ALLOWED = 2, 3, 5, 2, 3
POOL = 4  # groups of which the next is chosen when prompts are read in another order


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
class SimulatedRun:
    """What survives the processes of a run: ledger, texts, checkpoints, queue.

    `reorders`: which prompt is read next depends on what happened, as with `train.curriculum`. `groups`:
    those in flight in the last process.
    """

    chance: random.Random
    reorders: bool = False
    groups: dict[str, Group] = field(default_factory=dict)
    written: list[Entry] = field(default_factory=list)
    texts: dict[str, Completion] = field(default_factory=dict)
    checkpoints: list[tuple[int, list[str], dict[str, Group]]] = field(default_factory=lambda: [(0, [], {})])
    posted: Counter[str] = field(default_factory=Counter)
    queue: set[str] = field(default_factory=set)
    plan: ResumePlan = field(default_factory=ResumePlan)
    continued: dict[str, ResumeState] = field(default_factory=dict)

    def record(self, kind: type[Any], **fields: Any) -> None:
        self.written.append(kind(time=float(len(self.written) + 1), **fields))

    def process(self) -> Iterator[None]:
        """One process of the run; it may be killed wherever this yields."""
        step, prompts, groups = copy.deepcopy(self.checkpoints[-1])
        self.groups, held = groups, set(groups)
        for group in groups.values():
            if len(group.ended) < SIBLINGS:  # verl starts these again
                group.ended.clear()
                group.step = step + 1
        siblings: dict[tuple[str, int], Iterator[None]] = {}
        done: set[str] = set()  # since the last checkpoint
        while step < STEPS:
            while len(groups) < WINDOW:
                unread = (f"g{number}" for number in itertools.count() if f"g{number}" not in prompts)
                prompts.append(self.chance.choice([*itertools.islice(unread, POOL if self.reorders else 1)]))
                groups[prompts[-1]] = Group(step + 1)
            for uid, session in itertools.product(groups, range(SIBLINGS)):
                if self.reorders and uid not in held:
                    name = self.plan.name(uid, session)
                    assert name not in self.plan.continued | self.plan.masked
                    assert uid not in self.plan.steps
                if session not in groups[uid].ended and (uid, session) not in siblings:
                    siblings[uid, session] = self.rollout(uid, session, groups[uid], step)
            if siblings:
                chosen = self.chance.choice(sorted(siblings))
                if next(siblings[chosen], "over") == "over":
                    del siblings[chosen]
            yield
            if self.chance.random() < 0.8:
                continue  # the trainer is busy, and ended groups wait
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
        name = self.plan.name(uid, session)
        state = self.continued.get(name)
        if name in self.plan.masked:
            group.ended[session] = "masked"
            return
        if state is None:
            self.record(Started, rollout_id=name, task=TASK, step=step + 1)
            yield
            if self.chance.random() < 0.05:
                self.record(RolloutRaised, rollout_id=name, reason="no luck")
                group.ended[session] = "broken"
                return
            piece = CompletionSegment.of([1], [-1.0], (step, step))
            self.texts[name] = Completion(time=float(len(self.written)), pieces=(piece,))
            yield
            self.record(TextGenerated, rollout_id=name, segments=())
            yield
        assert name in self.texts
        if state is None or state.score is None:
            yield from self.score(name, state)
            if self.chance.random() < 0.1:
                failure = Failure(cause=Cause.QUOTA)
                score = Score(reward=None, masked_by=(failure,))
            else:
                score = Score(reward=0.5)
            document = Document(rollout_id=name, task=TASK, parts=())
            self.record(Scored, document=document, score=score, tokens=1, versions=(step, step))
            yield
            if score.reward is None:
                self.record(RolloutEnded, rollout_id=name, state="masked")
                group.ended[session] = "masked"
                return
        group.ended[session] = "trajectory"

    def score(self, name: str, state: Any) -> Iterator[None]:
        known = {outcome.request_id for outcome in state.outcomes} if state else set()
        for request_id in (f"{name}-0", f"{name}.judge_text"):
            if request_id in known:
                continue
            request = Request(request_id=request_id, kind="search", payload={}, deadline=1e9, owner=name)
            if request_id not in self.queue:
                self.queue.add(request_id)
                self.posted[request_id] += 1
            yield
            self.record(Posted, request=request)
            yield
            self.record(RequestEnded, outcome=Outcome(request_id=request_id, kind="search", result=Success()))
            yield

    def sample(self, uid: str, group: Group, step: int) -> bool:
        """Train on a group, or drop it. Returns whether it was trained on."""
        names = [self.plan.name(uid, session) for session, end in group.ended.items() if end == "trajectory"]
        if "broken" in group.ended.values():
            self.record(GroupFailed, uid=uid, step=step)
            return False
        began = min(group.step, self.plan.steps.get(uid, group.step))
        stale = step - began + 1 > ALLOWED
        for name in names:
            self.record(RolloutEnded, rollout_id=name, state="stale" if stale else "trained", step=step)
        if names and not stale:
            self.record(TrainerWaited, began=0.0, step=step)
        return bool(names) and not stale

    def saved(self) -> None:
        """Record the last checkpoint."""
        step, _prompts, groups = self.checkpoints[-1]
        ended = [(uid, group.ended) for uid, group in groups.items() if len(group.ended) == SIBLINGS]
        held = [
            self.plan.name(uid, session)
            for uid, ends in ended
            for session, end in ends.items()
            if end == "trajectory"
        ]
        self.record(CheckpointSaved, step=step, held=tuple(held))

    def resume(self) -> None:
        ledger = merged(self.written)
        if len(self.checkpoints) > 1 and self.checkpoints[-1][0] not in ledger.checkpoints:
            self.saved()  # it was killed between saving and recording the checkpoint
        elif len(self.checkpoints) > 1 and self.chance.random() < 0.2:
            self.checkpoints.pop()  # its files are missing; the texts from before it were removed
        self.record(Resumed, step=self.checkpoints[-1][0])
        decided = plan_resume(
            merged(self.written), self.texts.get, allowed=ALLOWED, same_prompts=not self.reorders
        )
        self.texts = {n: t for n, t in self.texts.items() if group_of(n) not in decided.forgotten}
        self.written += entries(decided, float(len(self.written) + 1))
        self.plan, self.continued = decided.plan, decided.continued

    def stop(self) -> None:
        """Stop in order: what is open is cancelled."""
        ledger = merged(self.written)
        for rollout in ledger.open:
            self.record(
                RolloutEnded, rollout_id=rollout.rollout_id, state="cancelled", reason="the run ended"
            )
        for record in ledger.pending:
            failure = Failure(cause=Cause.CANCELLED)
            outcome = Outcome(request_id=record.request.request_id, kind="search", result=failure)
            self.record(RequestEnded, outcome=outcome)


kills = st.lists(st.tuples(st.integers(1, 150), st.booleans()), max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), kills, st.booleans())
def test_a_run_may_be_killed_at_any_moment_any_number_of_times(seed, kills, reorders):
    """With prompts in the same order or another one after a resume. In another, groups that may not come back
    leave nothing open.
    """
    run = SimulatedRun(random.Random(seed), reorders)
    for moments, in_order in kills:
        for _ in itertools.islice(run.process(), moments):
            pass
        if in_order:
            run.stop()
        run.resume()
    for _ in run.process():
        pass
    if reorders:
        assert {rollout.uid for rollout in merged(run.written).open} <= run.groups.keys()
    run.stop()
    ledger = merged(run.written)
    assert ledger.violations == []
    assert ledger.open == ledger.pending == []
    trained = [rollout for rollout in ledger.rollouts.values() if rollout.state == "trained"]
    assert all(rollout.task is not None and rollout.reward is not None for rollout in trained)
    slots = Counter(slot_of(rollout.rollout_id) for rollout in trained)
    assert set(slots.values()) == {1}
    by_step = {step: {r.uid for r in trained if r.step == step} for step in range(1, STEPS + 1)}
    assert all(len(uids) == 1 for uids in by_step.values())
    assert len(set().union(*by_step.values())) == STEPS
    assert max(run.posted.values()) == 1
    assert [wait.step for wait in ledger.waits] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("versions", "cut", "effective"),
    [
        ((3, 4), (5,), (3, 4)),  # before the checkpoint
        ((5, 5), (5,), (5, 5)),
        ((7, 7), (5,), (3, 3)),  # two updates after it count as two before
        ((4, 7), (5,), (3, 5)),
        ((7, 7), (5, 9), (3, 3)),  # discarded weights stay discarded, however far the run is
        ((2, 2), (0,), (-2, -2)),
    ],
)
def test_discarded_weights_count_as_older_than_the_checkpoint(versions, cut, effective):
    assert effective_versions(versions, cut) == effective


def stopped(*later: Entry) -> Ledger:
    """A rollout whose text is complete, of a run that saved step 2."""
    asked = Request(request_id="u_0-0", kind="search", payload={}, deadline=1e9, owner="u_0")
    return merged([
        Started(time=1, rollout_id="u_0", task=TASK, step=3),
        TextGenerated(time=2, rollout_id="u_0", segments=()),
        Posted(time=3, request=asked),
        *later,
        Resumed(time=20, step=2),
    ])  # fmt: skip


def text(*versions: tuple[int, int]) -> Completion:
    return Completion(
        time=2.0, pieces=tuple(CompletionSegment.of([1], [-1.0], version) for version in versions)
    )


def test_a_complete_text_continues_and_its_open_request_is_no_orphan():
    decided = plan_resume(stopped(), lambda name: text((2, 2)), allowed=4)
    assert decided.plan.continued == decided.continued.keys() == {"u_0"}
    assert decided.plan.steps == {"u": 3}
    assert (decided.abandoned, decided.orphans) == ({}, ())
    assert decided.plan.name("u", 0) == "u_0"


def test_an_incomplete_text_is_started_again_with_another_id_and_its_request_is_an_orphan():
    decided = plan_resume(stopped(), lambda name: None, allowed=4)
    assert decided.plan.continued == decided.continued.keys() == set()
    assert list(decided.abandoned) == ["u_0"]
    assert [request.request_id for request in decided.orphans] == ["u_0-0"]
    assert decided.plan.name("u", 0) == "u_0.1"


def test_a_text_that_is_too_old_is_started_again():
    ledger = stopped()
    assert plan_resume(ledger, lambda name: text((0, 2)), allowed=3).abandoned == {}
    assert list(plan_resume(ledger, lambda name: text((0, 2)), allowed=2).abandoned) == ["u_0"]
    assert list(plan_resume(ledger, lambda name: text((4, 4)), allowed=2).abandoned) == ["u_0"]


def test_a_scored_document_keeps_its_score():
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=0.25), tokens=1, versions=(2, 2))
    trained = RolloutEnded(time=6, rollout_id="u_0", state="trained", step=3)
    decided = plan_resume(stopped(scored, trained), lambda name: text((2, 2)), allowed=1)
    [continued] = decided.continued.values()
    assert (continued.document, continued.score) == (document, Score(reward=0.25))


def test_a_score_of_discarded_weights_is_kept_unless_it_is_too_old():
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=0.25), tokens=1, versions=(4, 4))
    trained = RolloutEnded(time=6, rollout_id="u_0", state="trained", step=5)
    ledger = stopped(scored, trained)
    assert plan_resume(ledger, lambda name: text((4, 4)), allowed=3).abandoned == {}
    assert list(plan_resume(ledger, lambda name: text((4, 4)), allowed=2).abandoned) == ["u_0"]


@pytest.mark.parametrize("lost", [None, text((0, 2))], ids=["gone", "too old"])
def test_a_rollout_in_the_checkpoint_keeps_its_id_without_a_usable_text(lost):
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=0.25), tokens=1, versions=(2, 2))
    trained = RolloutEnded(time=8, rollout_id="u_0", state="trained", step=3)
    ledger = stopped(scored, Resumed(time=6, step=1), CheckpointSaved(time=7, step=2, held=("u_0",)), trained)
    decided = plan_resume(ledger, lambda name: lost, allowed=1)
    assert decided.abandoned == {}
    assert decided.plan.name("u", 0) == "u_0"


def test_in_another_order_groups_submitted_after_the_checkpoint_start_again():
    """Those from before it continue, also in a second resume, and when a resume has started them again."""
    failure = Failure(cause=Cause.QUOTA)
    masked = Score(reward=None, masked_by=(failure,))
    ledger = merged([
        Started(time=1, rollout_id="before_0", task=TASK, step=2),
        Started(time=2, rollout_id="again_0", task=TASK, step=2),
        CheckpointSaved(time=3, step=2),
        Started(time=4, rollout_id="later_0", task=TASK, step=3),
        Started(time=5, rollout_id="later_1", task=TASK, step=3),
        RolloutEnded(time=6, rollout_id="later_1", state="masked"),
        Started(time=7, rollout_id="later_2", task=TASK, step=3),
        Scored(time=8, document=Document(rollout_id="later_2", task=TASK, parts=()), score=masked, tokens=1),
        RolloutEnded(time=9, rollout_id="later_0", state="trained", step=3),
        Resumed(time=10, step=2),
        Started(time=11, rollout_id="again_0.1", task=TASK, step=3),
        Resumed(time=20, step=2),
    ])  # fmt: skip
    decided = plan_resume(ledger, lambda name: text((1, 1)), allowed=4, same_prompts=False)
    assert decided.plan.continued == decided.continued.keys() == {"before_0", "again_0.1"}
    assert decided.plan.steps.keys() == {"before", "again"}
    assert decided.plan.masked == set()
    assert decided.masked == {"later_2": "quota"}
    assert decided.abandoned["later_0"] == "its prompt was read after the checkpoint"
    assert [decided.plan.name("later", n) for n in range(3)] == ["later_0.2", "later_1.2", "later_2.2"]
    assert decided.forgotten == {"later"}


def test_a_group_submitted_in_an_undone_step_is_not_in_a_later_checkpoint():
    ledger = merged([
        Started(time=1, rollout_id="u_0", task=TASK, step=3),
        Resumed(time=2, step=2),
        CheckpointSaved(time=3, step=4),
        Started(time=4, rollout_id="u_0.1", task=TASK, step=5),
        Resumed(time=5, step=4),
    ])  # fmt: skip
    decided = plan_resume(ledger, lambda name: text((1, 1)), allowed=4, same_prompts=False)
    assert (decided.continued, decided.forgotten) == ({}, {"u"})
    assert plan_resume(ledger, lambda name: text((4, 4)), allowed=4).continued.keys() == {"u_0.1"}


def test_groups_that_the_checkpoint_is_done_with_are_left_out():
    other = Started(time=3, rollout_id="u_1.1", task=TASK, step=2)
    masked = RolloutEnded(time=5, rollout_id="u_1.1", state="masked")
    trained = RolloutEnded(time=6, rollout_id="u_0", state="trained", step=2)
    assert plan_resume(stopped(other, masked, trained), lambda name: None, allowed=4).plan == ResumePlan(
        step=2
    )
    assert plan_resume(stopped(other, masked), lambda name: None, allowed=4).plan.masked == {"u_1.1"}


def test_a_group_trained_on_before_the_checkpoint_stays_so():
    trained = RolloutEnded(time=6, rollout_id="u_0", state="trained", step=2)
    decided = plan_resume(stopped(trained), lambda name: text((2, 2)), allowed=4)
    assert decided.plan == ResumePlan(step=2)
    assert [request.request_id for request in decided.orphans] == ["u_0-0"]


def test_a_masked_score_without_a_terminal_state_is_masked():
    failure = Failure(cause=Cause.QUOTA)
    document = Document(rollout_id="u_0", task=TASK, parts=())
    scored = Scored(time=5, document=document, score=Score(reward=None, masked_by=(failure,)), tokens=1)
    decided = plan_resume(stopped(scored), lambda name: text((2, 2)), allowed=4)
    assert decided.masked == {"u_0": "quota"}
    assert decided.plan.masked == {"u_0"}


def test_a_plan_is_loaded_as_it_was_saved(tmp_path):
    assert ResumePlan.load(tmp_path) == ResumePlan()
    decided = plan_resume(stopped(), lambda name: text((2, 2)), allowed=4)
    decided.plan.save(tmp_path)
    decided.continued["u_0"].save(tmp_path, "u_0")
    assert ResumePlan.load(tmp_path) == decided.plan
    assert ResumeState.load(tmp_path, "u_0") == decided.continued["u_0"]
    CompletionStore(tmp_path).forget({"u"})
    with pytest.raises(FileNotFoundError):
        ResumeState.load(tmp_path, "u_0")
