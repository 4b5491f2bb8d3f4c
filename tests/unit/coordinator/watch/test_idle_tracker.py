"""The sums kept during a run equal those of its whole ledger, and few entries stay in memory."""

from __future__ import annotations

import json
import random

import pytest

from coordinator.watch.idle.report import Idleness
from coordinator.watch.idle.tracker import IdleTracker
from coordinator.watch.progress import Progress
from coordinator.watch.summary import read_metrics
from policy.document import Document, Task, TextPart
from policy.ledger.entries import (
    GroupFailed,
    Posted,
    RequestEnded,
    RolloutEnded,
    Scored,
    Started,
    TextGenerated,
    TrainerWaited,
)
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from workers.messages import Outcome, Request, Success

TASK = Task(question="Write about cats.")
BATCH, SIBLINGS, TRAINS_S, SYNC_S = 2, 2, 3.0, 0.5


def history(seed: int, steps: int = 30):
    """A random run: its entries in order, and the metrics of each step with the time of their arrival."""
    draw = random.Random(seed)
    entries, rows, groups, at = [], [], [], 1000.0

    def write(uid: str, asked: float) -> float:
        ready = []
        for member in range(SIBLINGS):
            name, began = f"{uid}_{member}", asked + draw.random() * 0.1
            wrote = began + 1 + draw.random() * 4
            middle = (began + wrote) / 2
            entries.append(Started(time=began, rollout_id=name, task=TASK))
            last = wrote
            for kind, posted in (("diffusion", middle), ("judge_text", wrote)):
                began = posted + draw.random() * 3
                ended = began + draw.expovariate(0.5)
                asked_for = Request(
                    request_id=f"{name}.{kind}", kind=kind, payload={}, deadline=1e9, owner=name
                )
                outcome = Outcome(
                    request_id=asked_for.request_id,
                    kind=kind,
                    result=Success(),
                    started=began,
                    finished=ended,
                )
                entries.append(Posted(time=posted, request=asked_for))
                entries.append(RequestEnded(time=ended + 0.01, outcome=outcome))
                last = max(last, ended + 0.02)
            entries.append(
                TextGenerated(time=wrote, rollout_id=name, segments=((began, middle), (middle, wrote)))
            )
            document = Document(rollout_id=name, task=TASK, parts=(TextPart(text="words"),))
            entries.append(Scored(time=last, document=document, score=Score(reward=0.5), tokens=9))
            ready.append(last)
        return max(ready)

    for step in range(1, steps + 1):
        for number in range(BATCH * (2 if step == 1 else 1)):
            groups.append((write(f"g{step}x{number}", at), f"g{step}x{number}"))
        began = at
        if draw.random() < 0.3:  # one is thrown away, and replaced
            ready, uid = groups.pop(0)
            at_end = max(at, ready) + 0.01
            if draw.random() < 0.5:
                entries.append(GroupFailed(time=at_end, uid=uid, step=step))
            else:
                for m in range(SIBLINGS):
                    entries.append(
                        RolloutEnded(time=at_end, rollout_id=f"{uid}_{m}", state="stale", step=step)
                    )
            groups.append((write(f"r{step}", at_end), f"r{step}"))
        groups.sort()
        batch, groups = groups[:BATCH], groups[BATCH:]
        at = max(at, batch[-1][0]) + 0.05
        for _, uid in batch:
            for m in range(SIBLINGS):
                entries.append(RolloutEnded(time=at, rollout_id=f"{uid}_{m}", state="trained", step=step))
        entries.append(TrainerWaited(time=at, began=began, step=step))
        at += TRAINS_S + SYNC_S
        data = {"timing_s/step": at - began, "timing_s/update_weights": SYNC_S, "timing_s/gen": 1.0}
        rows.append((at, step, data))
        at += 0.01
    entries.sort(key=lambda entry: entry.time)
    return entries, rows


def written(run, entries, rows):
    writer = LedgerWriter(run, "test")
    for entry in entries:
        writer.append(entry)
    writer.close()
    lines = (json.dumps({"step": step, "data": data}) + "\n" for _, step, data in rows)
    (run / "metrics.jsonl").write_text("".join(lines))


@pytest.mark.parametrize("seed", range(5))
def test_the_tracker_ends_with_the_idle_times_of_the_whole_ledger(tmp_path, seed):
    entries, rows = history(seed)
    written(tmp_path, entries, rows)
    whole = Idleness(read_ledger(tmp_path), read_metrics(tmp_path / "metrics.jsonl")).report()
    assert whole.trainer["running diffusion"] + whole.trainer["running judge_text"] > 0
    assert whole.trainer["weight sync"] == pytest.approx(30 * SYNC_S)
    watch, largest, now = IdleTracker(), 0, entries[0].time
    while entries:
        now += 0.5
        while rows and rows[0][0] <= now:
            _, step, data = rows.pop(0)
            watch.add_step(step, data)
        new = [entry for entry in entries if entry.time <= now]
        entries = entries[len(new) :]
        watch.add(new, now)
        largest = max(largest, len(watch._ledger.rollouts))
    for _, step, data in rows:
        watch.add_step(step, data)
    watch.add([])
    report = watch.report(watch.idleness())
    assert report.trainer == pytest.approx(whole.trainer)
    assert report.generator == pytest.approx(whole.generator)
    assert report.observed_s == pytest.approx(whole.observed_s)
    assert largest < 40, "of 130 and more rollouts"


def test_progress_of_an_ended_run_equals_its_summary(tmp_path):
    entries, rows = history(7)
    written(tmp_path, entries, rows)
    progress = Progress(tmp_path)
    progress.conclude()
    whole = Idleness(read_ledger(tmp_path), read_metrics(tmp_path / "metrics.jsonl")).report()
    assert progress.idle.trainer == pytest.approx(whole.trainer)
    assert progress.idle.generator == pytest.approx(whole.generator)
    assert progress.idle_tracker.median_s("diffusion") == pytest.approx(1.4, abs=0.7)
    assert progress.idle_tracker.median_s("code") is None


def test_after_its_last_step_a_run_waits_for_nothing(tmp_path):
    entries, rows = history(7)
    written(tmp_path, entries, rows)
    during, after = Progress(tmp_path, 31), Progress(tmp_path, 30)
    during.update()
    after.update()
    assert [span.cause for span in during.waiting] == ["not admitted"]
    assert after.waiting == []
    assert after.idle.observed_s < 1000 < during.idle.observed_s


def test_while_it_trains_nothing_is_waited_for():
    watch = IdleTracker()
    assert watch.waiting(0, 0.0, now=50.0) is None
    watch.add([Started(time=10.0, rollout_id="g_0", task=TASK)])
    assert watch.waiting(0, 0.0, now=50.0) == TrainerWaited(time=50.0, began=10.0, step=1)
    watch.add([TrainerWaited(time=60.0, began=10.0, step=1)])
    assert watch.waiting(0, 0.0, now=70.0) is None
    assert watch.waiting(1, 80.0, now=90.0) == TrainerWaited(time=90.0, began=80.0, step=2)


def test_a_pending_request_is_shown_with_its_prompt():
    watch = IdleTracker()
    asked = Request(request_id="g_0-0", kind="code", payload={"code": "x"}, deadline=1e9, owner="g_0")
    watch.add([Started(time=10.0, rollout_id="g_0", task=TASK), Posted(time=11.0, request=asked)])
    [record] = watch.pending(now=20.0)
    assert (record.posted, watch.owner(record).task) == (11.0, TASK)
    assert record.request.payload == {}
    assert watch.pending(now=2e9) == [], "its rollout does not wait for it any more"


def test_a_pending_request_of_an_evaluation_is_not_waited_for():
    watch = IdleTracker()
    asked = [
        Request(request_id=f"{owner}-0", kind="code", payload={}, deadline=1e9, owner=owner)
        for owner in ("eval-2-1c-0_0", "g_0")
    ]
    watch.add([Posted(time=10.0 + at, request=request) for at, request in enumerate(asked)])
    assert [record.request for record in watch.pending(now=20.0)] == [asked[1]]
