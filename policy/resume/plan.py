"""What a resumed run does with the rollouts that the dead one left: goes on with those whose text is
complete, begins the others anew. The decision (`plan`) is pure; the result is a file that every process of
the run reads, without what only one rollout needs (`policy.resume.state`).

verl begins again at its checkpoint: groups that were under way then come back by themselves, later prompts
are read again, and both get the group ids that they had (`policy.train.trainer`); what the checkpoint holds
of groups that had ended is not asked for again, be its text there or not. Invariants: a rollout that goes on
keeps its id, its text, its outcomes and its score, so that nothing is asked for twice; one that is begun anew
has another id, so that nothing of the old text can be taken for the new one's; how old a text is, is counted
by verl's own rule, in updates that lie between the weights that wrote it and those that train on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from policy.resume.completions import Completion, Versions
from policy.resume.state import ResumeState
from workers.messages import Message, Request
from workers.storage.atomic import save

FILE = "resumption.json"


class ResumePlan(Message):
    """`step`: of the checkpoint. `ids`: what the rollout of this place (`<group>_<sibling>`) is called, where
    it is not called after its place; `masked`: masked before the death, and still; `continued`: goes on;
    `steps`: by group, the step from which its age counts. There is nothing of groups that were over when the
    checkpoint was made."""

    step: int = 0
    ids: dict[str, str] = Field(default_factory=dict)
    masked: frozenset[str] = frozenset()
    continued: frozenset[str] = frozenset()
    steps: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def load(cls, run: Path) -> ResumePlan:
        """Of a run that was never resumed: nothing to go on with."""
        try:
            return cls.model_validate_json((run / FILE).read_bytes())
        except FileNotFoundError:
            return cls()

    def save(self, run: Path) -> None:
        save(run / FILE, self.model_dump_json())

    def name(self, uid: str, session: int | str) -> str:
        """The id of the rollout of this place."""
        slot = f"{uid}_{session}"
        return self.ids.get(slot, slot)


class ResumeDecision(Message):
    """`continued`: what is known of each rollout that goes on; `abandoned`: those that cannot, with the
    reason; `masked`: those that were, but died before they said so; `orphans`: requests that nobody waits for
    any more."""

    resumption: ResumePlan
    continued: dict[str, ResumeState]
    abandoned: dict[str, str]
    masked: dict[str, str]
    orphans: tuple[Request, ...]


def slot_of(rollout_id: str) -> str:
    """`<group>_<sibling>`, whichever attempt it is."""
    uid, _, sibling = rollout_id.rpartition("_")
    return f"{uid}_{sibling.partition('.')[0]}"


def group_of(rollout_id: str) -> str:
    """The group of a rollout, or of a place."""
    return rollout_id.rpartition("_")[0]


def effective_versions(versions: Versions, cut: Sequence[int]) -> Versions:
    """Weights by their place on the branch that survived. Those that a death cut off lie as many updates
    beyond the checkpoint as they are counted before it, since the way from them to later weights leads back
    over it.
    """
    oldest, newest = versions
    for step in cut:
        ends = min(oldest, 2 * step - oldest), min(newest, 2 * step - newest)
        oldest, newest = min(ends), step if oldest <= step <= newest else max(ends)
    return oldest, newest


def plan_resume(ledger: Ledger, texts: Callable[[str], Completion | None], *, allowed: int) -> ResumeDecision:
    """Decide, right after the last entry of `ledger` said from where the run goes on. `texts` gives the text
    of a rollout; `allowed`: how old it may be, as `train.max_staleness`.
    """
    step, latest = ledger.resumed[-1].step, _latest(ledger)
    over = {rollout.uid for rollout in ledger.rollouts.values() if rollout.step}
    held = ledger.held.get(step, frozenset())  # verl does not ask for these again, so they keep their ids
    ids = {where: rollout.rollout_id for where, rollout in latest.items() if where != rollout.rollout_id}
    requests = _by_owner(ledger)
    continued: dict[str, ResumeState] = {}
    steps: dict[str, int] = {}
    masked: dict[str, str] = {}
    abandoned = {
        rollout.rollout_id: "another was begun in its place when the run was resumed"
        for rollout in ledger.open
        if latest[slot_of(rollout.rollout_id)] is not rollout
    }
    for where, rollout in latest.items():
        name, reason = rollout.rollout_id, ""
        if rollout.state is None and rollout.score is not None and rollout.score.reward is None:
            masked[name] = ", ".join(sorted({failure.cause for failure in rollout.score.masked_by}))
        elif rollout.state is None:
            text, late = texts(name), False
            cut = tuple(resume.step for resume in ledger.resumed if text and resume.time > text.time)
            if text is not None:
                asked = max(0, rollout.asked_in_step - 1)  # the weights that were there then
                versions = text.versions or (asked, asked)
                began = effective_versions(versions, cut)[0] + 1
                # Of one that has its score the sampler decides, as of any other, unless weights that are gone
                # wrote it: too many of those would be thrown away at once.
                undecided = rollout.score is None or any(versions[1] > at for at in cut)
                late = undecided and step + 1 - began + 1 > allowed
            if text is None and name not in held:
                reason = "its text was not complete when the run died"
            elif late and name not in held:
                reason = "its text was too old when the run was resumed"
            else:
                continued[name] = _continued(rollout, requests.get(name, ()), cut)
                if text is not None:
                    steps[rollout.uid] = min(began, steps.get(rollout.uid, began))
        if reason:
            abandoned[name] = reason
        if reason or rollout.abandoned:
            ids[where] = f"{where}.{len(ledger.resumed)}"
    by_itself = {r.rollout_id for r in ledger.rollouts.values() if r.state == "masked" and not r.step}
    resumption = ResumePlan(
        step=step,
        ids={where: name for where, name in ids.items() if group_of(where) not in over},
        masked=frozenset(name for name in by_itself | masked.keys() if group_of(name) not in over),
        continued=frozenset(continued),
        steps=steps,
    )
    orphans = tuple(r.request for r in ledger.pending if r.request.owner not in continued)
    return ResumeDecision(
        resumption=resumption, continued=continued, abandoned=abandoned, masked=masked, orphans=orphans
    )


def _continued(
    rollout: RolloutRecord, requests: Sequence[RequestRecord], cut: tuple[int, ...]
) -> ResumeState:
    if rollout.score is not None:
        return ResumeState(cut=cut, document=rollout.document, score=rollout.score)
    return ResumeState(
        cut=cut,
        outcomes=tuple(record.outcome for record in requests if record.outcome is not None),
    )


def _latest(ledger: Ledger) -> dict[str, RolloutRecord]:
    """Of each place the rollout that was begun last."""
    latest: dict[str, RolloutRecord] = {}
    for rollout in ledger.rollouts.values():
        where = slot_of(rollout.rollout_id)
        if where not in latest or _attempt(rollout.rollout_id) > _attempt(latest[where].rollout_id):
            latest[where] = rollout
    return latest


def _attempt(rollout_id: str) -> int:
    return int(rollout_id.rpartition("_")[2].partition(".")[2] or 0)


def _by_owner(ledger: Ledger) -> dict[str, list[RequestRecord]]:
    owned: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in ledger.requests.values():
        owned[record.request.owner].append(record)
    return owned
