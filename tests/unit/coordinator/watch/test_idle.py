"""Why trainer and generator were idle: by hand on small ledgers, and as properties of any."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.watch.idle.path import CAUSES, critical_path
from coordinator.watch.idle.report import Idleness
from coordinator.watch.idle.spans import Span, merged, totals
from policy.document import Task
from policy.ledger.entries import TrainerWaited
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from workers.errors import Cause
from workers.messages import BlobRef, Failure, Outcome, Request, Success

TASK = Task(question="Write about cats.")


def image(number: int) -> BlobRef:
    return BlobRef(sha256=f"{number:064x}", media_type="image/png", size=1, width=1, height=1)


def request(name, kind, posted, started=0.0, finished=0.0, ended=0.0, owner="g_0", makes=None, needs=None):
    """A request's record; times in seconds, 0 for never."""
    payload = {"image": needs.model_dump(mode="json")} if needs else {}
    asked = Request(request_id=name, kind=kind, payload=payload, deadline=1e6, owner=owner)
    result = Success(images=(makes,) if makes else ())
    outcome = Outcome(request_id=name, kind=kind, result=result, started=started, finished=finished)
    return RequestRecord(asked, posted, outcome if ended else None, ended)


def rollout(name="g_0", started=0.0, segments=(), scored=0.0, **fields):
    generated = segments[-1][1] if segments else 0.0
    return RolloutRecord(
        name, TASK, started=started, segments=tuple(segments), generated=generated, scored=scored, **fields
    )


def ledger(rollouts, requests=(), waits=()):
    return Ledger(
        {r.rollout_id: r for r in rollouts},
        {r.request.request_id: r for r in requests},
        [TrainerWaited(time=time, began=began, step=step) for began, time, step in waits],
    )


def rows(spans):
    return [(span.cause, span.began, span.ended) for span in spans]


def test_a_document_with_two_pictures_by_hand():
    one = rollout(started=1, segments=[(1, 3), (3, 5)], scored=20)
    requests = [
        request("d", "diffusion", 3, 6, 9, 10),  # waited for a slot until 6
        request("s", "search", 5, 5, 6, 6),
        request("jt", "judge_text", 5, 5, 8, 8),
        request("ji", "judge_image", 11, 12, 18, 19),  # read for a second before it was posted
    ]
    assert rows(critical_path(one, requests, 99)) == [
        ("generation", 1, 3),
        ("queue diffusion", 3, 6),
        ("running diffusion", 6, 9),
        ("delivery diffusion", 9, 10),
        ("bookkeeping", 10, 11),
        ("queue judge_image", 11, 12),
        ("running judge_image", 12, 18),
        ("delivery judge_image", 18, 19),
        ("bookkeeping", 19, 20),
    ]


def test_an_edit_waits_for_the_image_that_it_changes_and_not_for_what_ended_later():
    one = rollout(started=0, segments=[(0, 2)], scored=12)
    requests = [
        request("d", "diffusion", 1, 1, 4, 4, makes=image(1)),
        request("s", "search", 1, 1, 8, 8, makes=image(2)),
        request("e", "edit", 4, 4, 12, 12, needs=image(1)),
    ]
    path = critical_path(one, requests, 99)
    assert rows(path) == [("generation", 0, 1), ("running diffusion", 1, 4), ("running edit", 4, 12)]
    assert [span.request_id for span in path] == ["", "d", "e"]


def test_an_edit_of_an_image_that_was_there_waits_for_its_text():
    one = rollout(started=0, segments=[(0, 1), (1, 6)], scored=9)
    requests = [
        request("d", "diffusion", 1, 1, 2, 2, makes=image(1)),
        request("e", "edit", 6, 6, 9, 9, needs=image(1)),
    ]
    assert rows(critical_path(one, requests, 99)) == [
        ("generation", 0, 1),
        ("generation", 1, 6),
        ("running edit", 6, 9),
    ]


def test_a_text_that_takes_longer_than_its_images_is_the_cause():
    one = rollout(started=0, segments=[(0, 10)], scored=10)
    assert rows(critical_path(one, [request("s", "search", 1, 1, 2, 2)], 99)) == [("generation", 0, 10)]


def test_a_rollout_in_flight_generates_until_its_text_is_recorded():
    one = rollout(started=2)
    assert rows(critical_path(one, [request("s", "search", 3)], 9)) == [("generation", 2, 9)]


def test_a_request_without_an_outcome_is_pending_since_it_was_posted():
    one = rollout(started=0, segments=[(0, 4)])
    requests = [
        request("jt", "judge_text", 4),
        request("d", "diffusion", 2),
        request("s", "search", 1, 1, 2, 2),
    ]
    assert rows(critical_path(one, requests, 9)) == [("generation", 0, 2), ("pending diffusion", 2, 9)]


def test_a_request_cancelled_for_the_failure_of_another_is_no_cause():
    failed, cancelled = (
        Outcome(request_id="x", kind="k", result=Failure(cause=cause))
        for cause in (Cause.PROVIDER_DOWN, Cause.CANCELLED)
    )
    diffusion, judge = request("d", "diffusion", 2), request("jt", "judge_text", 4)
    diffusion.outcome, diffusion.ended = failed, 8.0
    judge.outcome, judge.ended = cancelled, 9.0
    path = critical_path(rollout(segments=[(0, 4)], scored=9), [diffusion, judge], 99)
    assert rows(path) == [("generation", 0, 2), ("pending diffusion", 2, 8), ("bookkeeping", 8, 9)]


def test_the_trainer_waited_for_the_group_that_was_ready_last():
    rollouts = [
        rollout("a_0", 0, [(0, 2)], 5, state="trained", step=1, ended=11),
        rollout("a_1", 0, [(0, 2)], 10, state="masked", ended=10),  # it does not count, but was waited for
        rollout("b_0", 0, [(0, 2)], 30, state="trained", step=2, ended=31),
    ]
    requests = [
        request("x", "judge_text", 2, 3, 9, 10, owner="a_1"),
        request("y", "diffusion", 2, 28, 30, 30, owner="b_0"),
    ]
    book = ledger(rollouts, requests, [(0, 11, 1), (20, 31, 2)])
    rows = [{"step": 1, "timing_s/step": 18.0, "timing_s/update_weights": 2.0}]
    report = Idleness(book, rows).report()
    assert report.trainer == {
        "queue diffusion": 8.0,
        "running judge_text": 6.0,
        "generation": 2.0,
        "running diffusion": 2.0,
        "weight sync": 2.0,
        "bookkeeping": 2.0,
        "queue judge_text": 1.0,
        "delivery judge_text": 1.0,
    }
    # From 2 on no text is generated; the oldest are a_0 (done at 5), a_1 (10), b_0 (30).
    assert report.observed_s == 31.0
    assert report.generator["weight sync"] == 2.0
    assert sum(report.generator.values()) == pytest.approx(29.0)
    assert report.generator["queue diffusion"] == 16.0  # 10 to 16 and 18 to 28


def test_a_group_in_the_place_of_one_thrown_away_is_a_refill_until_it_is_written():
    rollouts = [
        rollout("a_0", 0, [(0, 1)], 1, state="stale", step=3, ended=10),
        rollout("b_0", 12, [(12, 15)], 17, state="trained", step=3, ended=18),
    ]
    requests = [request("j", "judge_text", 15, 15, 17, 17, owner="b_0")]
    report = Idleness(ledger(rollouts, requests, [(10, 18, 3)]), []).report()
    assert report.trainer == {"refill": 5.0, "running judge_text": 2.0, "bookkeeping": 1.0}


def test_a_wait_for_an_unsubmitted_rollout_and_an_unexplained_one():
    rollouts = [rollout("a_0", 4, [(4, 6)], 6, state="trained", step=1, ended=6)]
    report = Idleness(ledger(rollouts, (), [(0, 6, 1), (7, 8, 2)]), []).report()
    assert report.trainer == {"not admitted": 4.0, "generation": 2.0, "unexplained": 1.0}
    assert report.generator == {"not admitted": 6.0}


def test_an_open_wait_is_for_the_oldest_rollout():
    rollouts = [rollout("a_0", 0, [(0, 2)]), rollout("b_0", 1, [(1, 3)], 4)]
    requests = [request("d", "diffusion", 2, owner="a_0")]
    waiting = TrainerWaited(time=20, began=4, step=1)
    idle = Idleness(ledger(rollouts, requests), [], now=20, waiting=waiting)
    assert rows(idle.why(waiting)) == [("pending diffusion", 4, 20)]
    assert idle.oldest().rollout_id == "a_0"
    assert idle.report().generator == {"pending diffusion": 17.0}


def test_the_generator_is_idle_while_weights_are_sent():
    rollouts = [rollout("a_0", 0, [(0, 30)], 30, state="trained", step=2, ended=30)]
    rows = [{"step": 1, "timing_s/step": 10.0, "timing_s/update_weights": 3.0}]
    report = Idleness(ledger(rollouts, (), [(0, 1, 1), (9, 30, 2)]), rows).report()
    assert report.trainer["weight sync"] == 3.0  # 6 to 9: the next wait had started by 9
    assert report.generator == {"weight sync": 3.0}


def test_an_empty_ledger_has_no_idle_time():
    report = Idleness(Ledger(), []).report()
    assert (report.trainer, report.generator, report.generator_ratio) == ({}, {}, None)


times = st.floats(0, 100)
kinds = st.sampled_from(["search", "diffusion", "edit", "judge_text", "judge_image"])


def test_idle_time_in_a_pause_has_the_cause_paused():
    one = rollout("g_0", started=60, segments=[(60, 70)], scored=70, state="trained", step=1, ended=70)
    paused = ledger([one], waits=[(0, 70, 1)])
    paused.pauses = [(10, 40)]
    report = Idleness(paused, []).report()
    assert report.trainer == {"not admitted": 30, "paused": 30, "generation": 10}
    assert report.generator == {"not admitted": 30, "paused": 30}


@st.composite
def requests_of(draw, owner, number):
    began, served = draw(times), sorted([draw(times), draw(times)])
    ran = served if draw(st.booleans()) else (0.0, 0.0)
    ended = draw(st.one_of(st.just(0.0), times))
    made, needed = image(draw(st.integers(1, 3))), image(draw(st.integers(1, 3)))
    kind = draw(kinds)
    return request(
        f"{owner}-{number}", kind, began, *ran, ended, owner, made, needed if kind == "edit" else None
    )


@st.composite
def books(draw):
    """Any ledger, sensible or not: clocks of several machines, lost lines, overlapping waits."""
    rollouts, requests = [], []
    for number in range(draw(st.integers(0, 5))):
        name = f"g{number // 2}_{number % 2}"
        edges = sorted(draw(st.lists(times, max_size=6)))
        spans = list(zip(edges[::2], edges[1::2], strict=False))
        state = draw(st.sampled_from([None, "trained", "stale", "masked", "cancelled"]))
        one = rollout(name, draw(times), spans, draw(st.one_of(st.just(0.0), times)), state=state)
        one.step, one.ended = draw(st.integers(0, 3)), draw(times) if state else 0.0
        rollouts.append(one)
        requests += [draw(requests_of(name, n)) for n in range(draw(st.integers(0, 4)))]
    waits = [
        (*draw(st.tuples(times, times)), draw(st.integers(1, 3))) for _ in range(draw(st.integers(0, 4)))
    ]
    rows = [
        {"step": step, "timing_s/step": draw(times), "timing_s/update_weights": draw(times)}
        for step in range(1, 4)
        if draw(st.booleans())
    ]
    return ledger(rollouts, requests, waits), rows


@given(books(), st.one_of(st.none(), times), st.booleans())
def test_the_seconds_of_all_causes_are_the_seconds_of_idleness(book, now, waits_now):
    ledger, rows = book
    last = max((wait.time for wait in ledger.waits), default=0.0)
    waiting = None
    if now is not None and waits_now and now > last:
        waiting = TrainerWaited(time=now, began=last, step=4)
    idle = Idleness(ledger, rows, now=now, waiting=waiting)
    ledger.pauses = [(20.0, 45.0), (60.0, math.inf)]
    report = idle.report()
    spans = [(wait.began, wait.time) for wait in idle.waits] + idle.syncs
    alone = merged(spans, -1e9, 1e9)
    assert sum(report.trainer.values()) == pytest.approx(sum(b - a for a, b in alone))
    assert sum(report.generator.values()) <= report.observed_s + 1e-6
    for cause, seconds in [*report.trainer.items(), *report.generator.items()]:
        assert seconds >= 0
        assert cause.partition(" ")[0] in {name.partition(" ")[0] for name in CAUSES}
    cut = idle.report(until=50.0), idle.report(since=50.0)
    assert sum(sum(part.trainer.values()) for part in cut) == pytest.approx(sum(report.trainer.values()))
    assert sum(sum(part.generator.values()) for part in cut) == pytest.approx(sum(report.generator.values()))


@given(books())
def test_a_path_reaches_from_start_to_end_without_a_gap(book):
    ledger, _ = book
    for one in ledger.rollouts.values():
        own = [record for record in ledger.requests.values() if record.request.owner == one.rollout_id]
        spans = critical_path(one, own, 200.0)
        for before, after in itertools.pairwise(spans):
            assert before.ended == after.began
        if spans:
            assert spans[0].began == one.started
            assert all(span.seconds > 0 for span in spans)


def test_totals_add_up_by_cause_the_largest_first():
    assert list(totals([Span("a", 0, 1), Span("b", 1, 4), Span("a", 4, 5)]).items()) == [("b", 3), ("a", 2)]
