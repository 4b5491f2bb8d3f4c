"""The resume plan: which rollouts a resumed run continues, and which it starts again.

Rollouts with a complete text continue, others are started again. The decision (`plan_resume`) is pure. Its
result is a file that every process of the run reads; what only one rollout needs is in `policy.resume.state`.

verl restarts at its checkpoint: it submits the groups that were in flight then, reads later prompts again,
and both get the same group ids as before (`policy.train.trainer`). Groups that had ended are in the
checkpoint and are not submitted again, with or without their texts. With `train.curriculum` the prompts that
are read later depend on the order in which groups end, so a group submitted after the checkpoint may come
back many steps later, or never. Nothing of such a group is used.

Invariants:
- a rollout that continues keeps its id, text, outcomes and score, so that no request is made twice;
- a rollout that is started again has another id, so that nothing of the old text counts for the new one;
- the age of a text is counted as in verl: the number of updates between the weights that wrote it and those
  that train on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from policy.resume.completions import Completion, Versions
from policy.resume.slots import group_of, latest_by_slot, slot_of, submitted_before
from policy.resume.state import ResumeState
from workers.messages import Message, Request
from workers.storage.atomic import save

FILE = "resumption.json"


class ResumePlan(Message):
    """The plan that all processes read.

    A slot is `<group>_<n>`, the n-th rollout of a group. `step`: of the checkpoint. `ids`: rollout ids by
    slot, where they differ from it. `masked`: rollouts that were masked before the resume. `continued`:
    rollouts that continue. `steps`: by group, the step from which its age counts. Groups that the checkpoint
    is done with are left out.
    """

    step: int = 0
    ids: dict[str, str] = Field(default_factory=dict)
    masked: frozenset[str] = frozenset()
    continued: frozenset[str] = frozenset()
    steps: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def load(cls, run: Path) -> ResumePlan:
        """Load the plan of a run; an empty one if it was never resumed."""
        try:
            return cls.model_validate_json((run / FILE).read_bytes())
        except FileNotFoundError:
            return cls()

    def save(self, run: Path) -> None:
        save(run / FILE, self.model_dump_json())

    def name(self, uid: str, session: int | str) -> str:
        """The id of the rollout in a slot."""
        slot = f"{uid}_{session}"
        return self.ids.get(slot, slot)


class ResumeDecision(Message):
    """What to do on a resume.

    `continued`: the state of each rollout that continues. `abandoned`: rollouts that cannot, with the reason.
    `masked`: rollouts with a masked score but no terminal state yet, with the causes. `orphans`: requests
    without a rollout that waits for them. `forgotten`: groups whose texts are of no use any more.
    """

    plan: ResumePlan
    continued: dict[str, ResumeState]
    abandoned: dict[str, str]
    masked: dict[str, str]
    orphans: tuple[Request, ...]
    forgotten: frozenset[str] = frozenset()


def effective_versions(versions: Versions, cut: Sequence[int]) -> Versions:
    """Versions of weights, counted on the branch of training that survived.

    `cut`: the checkpoint steps of the resumes since. Weights that a resume discarded, n updates after its
    checkpoint, count as n updates before it: the distance from them to later weights goes back over the
    checkpoint.
    """
    oldest, newest = versions
    for step in cut:
        ends = min(oldest, 2 * step - oldest), min(newest, 2 * step - newest)
        oldest, newest = min(ends), step if oldest <= step <= newest else max(ends)
    return oldest, newest


def plan_resume(
    ledger: Ledger, texts: Callable[[str], Completion | None], *, allowed: int, same_prompts: bool = True
) -> ResumeDecision:
    """Decide what to do with each rollout. The last entry of `ledger` is `Resumed`.

    `texts`: returns the saved text of a rollout. `allowed`: the most that a text may be behind, as
    `train.max_staleness`. `same_prompts`: whether the prompts read after the checkpoint are read again.
    """
    step, latest = ledger.resumed[-1].step, latest_by_slot(ledger)
    done = {rollout.uid for rollout in ledger.rollouts.values() if rollout.step}
    held = ledger.held.get(step, frozenset())  # verl does not submit these again, so they keep their ids
    ids = {slot: rollout.rollout_id for slot, rollout in latest.items() if slot != rollout.rollout_id}
    later = frozenset[str]()  # groups that the checkpoint does not know, and that may not come back
    if not same_prompts:
        known = submitted_before(ledger, step) | done | {group_of(name) for name in held}
        later = frozenset(rollout.uid for rollout in latest.values()) - known
    requests = _by_owner(ledger)
    continued: dict[str, ResumeState] = {}
    steps: dict[str, int] = {}
    masked: dict[str, str] = {}
    abandoned = {
        rollout.rollout_id: "another rollout replaced it when the run was resumed"
        for rollout in ledger.open
        if latest[slot_of(rollout.rollout_id)] is not rollout
    }
    for slot, rollout in latest.items():
        name, reason = rollout.rollout_id, ""
        if rollout.state is None and rollout.score is not None and rollout.score.reward is None:
            masked[name] = ", ".join(sorted({failure.cause for failure in rollout.score.masked_by}))
        elif rollout.state is None and rollout.uid in later:
            reason = "its prompt was read after the checkpoint"
        elif rollout.state is None:
            text = texts(name)
            cut, first, too_old = _age(ledger, rollout, text, allowed) if text else ((), 0, False)
            if text is None and name not in held:
                reason = "its text was not complete when the run stopped"
            elif too_old and name not in held:
                reason = "its text was too old when the run was resumed"
            else:
                continued[name] = _state(rollout, requests.get(name, ()), cut)
                if text is not None:
                    steps[rollout.uid] = min(first, steps.get(rollout.uid, first))
        if reason:
            abandoned[name] = reason
        if reason or rollout.abandoned or rollout.uid in later:
            ids[slot] = f"{slot}.{len(ledger.resumed)}"
    masked_before = {r.rollout_id for r in ledger.rollouts.values() if r.state == "masked" and not r.step}
    unmasked = done | later
    plan = ResumePlan(
        step=step,
        ids={slot: name for slot, name in ids.items() if group_of(slot) not in done},
        masked=frozenset(name for name in masked_before | masked.keys() if group_of(name) not in unmasked),
        continued=frozenset(continued),
        steps=steps,
    )
    orphans = tuple(r.request for r in ledger.pending if r.request.owner not in continued)
    return ResumeDecision(
        plan=plan,
        continued=continued,
        abandoned=abandoned,
        masked=masked,
        orphans=orphans,
        forgotten=later,
    )


def _age(
    ledger: Ledger, rollout: RolloutRecord, text: Completion, allowed: int
) -> tuple[tuple[int, ...], int, bool]:
    """The checkpoint steps of the resumes since `text` was written, the step from which its age counts, and
    whether it is too old to continue.
    """
    cut = tuple(resume.step for resume in ledger.resumed if resume.time > text.time)
    newest = max(0, rollout.submitted_step - 1)  # the newest weights when it was submitted
    versions = text.versions or (newest, newest)
    first = effective_versions(versions, cut)[0] + 1
    # The sampler decides about a scored rollout, unless discarded weights wrote it: it would drop too many of
    # those at once.
    undecided = rollout.score is None or any(versions[1] > step for step in cut)
    return cut, first, undecided and ledger.resumed[-1].step + 1 - first + 1 > allowed


def _state(rollout: RolloutRecord, requests: Sequence[RequestRecord], cut: tuple[int, ...]) -> ResumeState:
    if rollout.score is not None:
        return ResumeState(cut=cut, document=rollout.document, score=rollout.score)
    return ResumeState(
        cut=cut,
        outcomes=tuple(record.outcome for record in requests if record.outcome is not None),
    )


def _by_owner(ledger: Ledger) -> dict[str, list[RequestRecord]]:
    owned: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in ledger.requests.values():
        owned[record.request.owner].append(record)
    return owned
