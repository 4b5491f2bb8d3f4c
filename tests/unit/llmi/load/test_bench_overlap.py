"""What `llmi bench overlap` computes from finished runs: by hand on small ledgers, and as properties."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from overlap_ledgers import Book

from llmi.load.overlap.bound import Bound, bound, targets
from llmi.load.overlap.numbers import Repeated, measure
from llmi.load.overlap.run import VariantRun
from llmi.load.overlap.spans import covered_s, lanes, running

TIMES = st.floats(0, 100)
SPANS = st.lists(st.tuples(TIMES, TIMES).map(sorted).map(tuple), max_size=30)


def blocking() -> Book:
    """A warm step, and three of 10, 10 and 12 s, in which the trainer waits for 6, 6 and 8 s."""
    book = Book()
    book.step(1, (0, 5), step_s=9)
    book.step(2, (10, 16), step_s=9.5, staleness=0.0, worst=1.0, reward=0.2)
    book.step(3, (20, 26), step_s=9.5, staleness=1.0, worst=3.0, reward=0.4)
    book.step(4, (30, 38), step_s=12, staleness=0.5, worst=2.0, reward=0.6)
    book.rollout("a_0", (0, 2), step=1)
    book.rollout("b_0", (10, 11), (11, 12), step=2)
    book.rollout("b_1", (11, 13), step=2)
    book.rollout("c_0", (20, 21), step=3)
    book.rollout("c_1", (22, 23), step=3)
    book.rollout("d_0", (30, 32), step=4)
    book.rollout("d_1", (30, 31), step=4, state="masked")
    return book


def test_seconds_and_samples_by_hand():
    numbers = measure(blocking().run())
    assert (numbers.steps, numbers.samples, numbers.peak_rss_bytes) == (3, 5, 7)
    assert numbers.seconds_per_step == Repeated(pytest.approx(32 / 3), 10, 10, 12)
    assert numbers.samples_per_s == Repeated(5 / 32, 0.2, pytest.approx(1 / 12), 0.2)


def test_idle_ratios_by_hand():
    numbers = measure(blocking().run())
    assert numbers.trainer_idle_ratio.overall == pytest.approx(20 / 32)
    assert numbers.weight_sync_ratio == pytest.approx(3 / 32)
    assert numbers.generation_idle_ratio == pytest.approx(1 - (3 + 2 + 2) / 32)


def test_writing_counts_only_within_the_measured_time():
    book = blocking()
    book.rollout("e_0", (5, 10.5), (41, 50), state="cancelled")
    assert measure(book.run()).generation_idle_ratio == pytest.approx(1 - (3 + 2 + 2 + 1) / 32)


def test_staleness_reward_and_dropped_groups_by_hand():
    book = blocking()
    for name, step in (("x_0", 3), ("x_1", 3), ("y_0", 4), ("z_0", 1)):
        book.rollout(name, step=step, state="stale")
    numbers = measure(book.run())
    assert (numbers.staleness_mean, numbers.staleness_worst) == (0.5, 3.0)
    assert numbers.reward == pytest.approx(0.4)
    assert numbers.stale_groups == 2


def test_a_remainder_of_steps_is_dropped_from_the_front():
    run = blocking().run(warm=0, repeats=3)
    assert [[step.number for step in window] for window in run.windows] == [[2], [3], [4]]
    cooled = replace(blocking().run(warm=1, repeats=2), cool=1)
    assert [[step.number for step in window] for window in cooled.windows] == [[2], [3]]
    two = blocking().run(warm=1, repeats=1)
    assert [step.number for step in two.steps] == [2, 3, 4]
    assert measure(two).seconds_per_step.least == pytest.approx(32 / 3)


def test_too_few_steps_and_missing_metrics_are_named():
    with pytest.raises(ValueError, match="2 steps after 2 are too few for 3"):
        measure(blocking().run(warm=2))
    book = blocking()
    del book.metrics[2]["critic/score/mean"]
    with pytest.raises(ValueError, match="step 3 lack critic/score/mean"):
        measure(book.run())


def test_a_step_the_run_did_not_finish_is_not_measured():
    book = blocking()
    unfinished = book.metrics.pop()
    assert [step.ended for step in book.run(repeats=2).steps] == [Book.ZERO + 20, Book.ZERO + 30]
    assert unfinished["step"] == 4


def test_queue_waits_services_and_work_by_hand():
    book = blocking()
    book.request("a_0", "search", 1, 2, 3)  # of a warm step
    for place, (posted, started, finished) in enumerate([(12, 12.5, 14), (13, 15, 18), (22, 22, 23)]):
        book.request("b_0" if place < 2 else "c_0", "search", posted, started, finished, place)
    book.request("d_1", "search", 31, None, 40)  # a masked sibling's, that no worker began
    book.rollout("s_0", (13, 14), step=3, state="stale")
    book.request("s_0", "search", 14, 15, 25)  # thrown away
    search = measure(book.run()).queues["search"]
    assert (search.slots, search.requests, search.never_started) == (2, pytest.approx(4 / 3), 1)
    assert (search.wait_p50_s, search.wait_p99_s) == (0.5, 2.0)
    assert search.service_s == pytest.approx(5.5 / 3)
    assert search.work_s == pytest.approx(5.5 / 3)


def test_a_queue_without_requests_has_numbers_too():
    edit = measure(blocking().run()).queues["edit"]
    assert (edit.slots, edit.requests, edit.wait_p99_s, edit.work_s) == (1, 0, 0, 0)


def phased() -> Book:
    """Step 2 has its last text at 13; tools end at 16, 18 and 21, judges are posted one after the other."""
    book = blocking()
    book.request("b_0", "diffusion", 13, 13, 16)
    book.request("b_1", "diffusion", 16, 16, 18)  # there was one thread, and it was taken for 3 s
    book.request("b_1", "edit", 18, 19, 21)
    book.request("b_0", "judge_text", 21, 21, 22)
    book.request("b_1", "judge_text", 22, 22.5, 23)
    return book


def test_waiting_for_a_thread_of_the_client_counts_in_a_phased_variant():
    run = phased().run(phased=True)
    after = {name.partition(".")[2] + name[2]: time - Book.ZERO for name, time in run.due.items()}
    assert after == {"diffusion-00": 13, "diffusion-01": 13, "edit-01": 18, "judge_text-00": 21,
                     "judge_text-01": 21}  # fmt: skip
    queues = measure(run).queues
    assert (queues["diffusion"].wait_p50_s, queues["diffusion"].wait_p99_s) == (0, 3)
    assert queues["edit"].wait_p99_s == 1
    assert queues["judge_text"].wait_p99_s == 1.5


def test_elsewhere_a_request_waits_from_when_it_was_posted():
    queues = measure(phased().run()).queues
    assert queues["diffusion"].wait_p99_s == 0
    assert queues["judge_text"].wait_p99_s == 0.5


def test_judges_without_any_tool_wait_from_the_last_text():
    book = blocking()
    book.request("b_0", "judge_text", 15, 15, 16)
    assert measure(book.run(phased=True)).queues["judge_text"].wait_p99_s == 2


def test_a_request_is_never_due_after_it_was_posted():
    book = phased()
    book.rollout("r_0", (25, 26), step=3, asked=2)  # replaces a group of step 2
    run = book.run(phased=True)
    assert all(run.due[name] <= record.posted for name, record in book.ledger.requests.items())


def test_the_bound_by_hand():
    variant = blocking()
    variant.request("b_0", "diffusion", 12, 12, 42)
    variant.request("c_0", "diffusion", 12, 12, 42)
    variant.request("c_0", "search", 12, 13, 19)
    best = bound(blocking().run(), variant.run())
    assert best.parts == {"generation": pytest.approx(7 / 3), "training": pytest.approx(4), "search": 1,
                          "diffusion": 5, "edit": 0, "code": 0,
                          "judge_text": 0, "judge_image": 0}  # fmt: skip
    assert (best.largest, best.seconds) == ("diffusion", 5)
    assert best.trainer_idle_ratio == pytest.approx(0.2)
    assert json.loads(json.dumps(best.document()))["largest"] == "diffusion"


def test_a_trainer_that_is_the_bound_need_not_wait():
    best = bound(blocking().run(), blocking().run())
    assert (best.largest, best.trainer_idle_ratio) == ("training", 0)


def test_variants_with_other_steps_are_not_compared():
    with pytest.raises(ValueError, match="differ in samples per step"):
        bound(blocking().run("one"), blocking().run("two", samples_per_step=4))


def variants(**samples_per_s: float) -> dict:
    numbers = measure(blocking().run())
    return {
        name: replace(
            numbers, samples_per_s=Repeated(0, speed, 0, 99), trainer_idle_ratio=Repeated(0, 0.25, 0, 1)
        )
        for name, speed in samples_per_s.items()
    }


def test_targets_are_met_up_to_their_limits():
    four = variants(blocking=1, blocking_wide=1.5, coupled=12 / 7, llmi=3)
    best = Bound({"generation": 10 / 1.15, "training": 8 / 1.15})
    four["llmi"] = replace(four["llmi"], staleness_mean=2.2)
    met = targets(four, best, variants(coupled=1.0, llmi=1.0))
    assert [target.value for target in met] == pytest.approx([3, 2, 1.75, 1.15, 0.05, 2.2, 1.0])
    assert [target.met for target in met[:3]] == [True] * 3
    assert met[5].met
    slow = variants(llmi=2.9)
    slow["llmi"] = replace(slow["llmi"], staleness_mean=2.3)
    slower = targets(four | slow, Bound({"generation": 8.5, "training": 7}), variants(coupled=1, llmi=0.9))
    assert [target.met for target in slower] == [False] * 7
    assert "asked for" not in json.dumps([target.document() for target in slower])


def test_without_the_second_mix_there_is_no_target_for_it():
    four = variants(blocking=1, blocking_wide=1, coupled=1, llmi=1)
    assert len(targets(four, Bound({"training": 10}))) == 6


def test_numbers_are_json():
    document = json.loads(json.dumps(measure(phased().run()).document()))
    assert document["queues"]["edit"]["wait_p50_s"] == 1
    assert document["seconds_per_step"]["median"] == 10


def test_cover_by_hand():
    assert covered_s([(0, 2), (1, 3), (5, 6), (9, 20), (4, 4)], (1, 10)) == 2 + 1 + 1


@given(SPANS, st.tuples(TIMES, TIMES).map(sorted).map(tuple))
def test_spans_cover_no_more_than_the_window_and_no_less_than_the_longest(spans, window):
    covered = covered_s(spans, window)
    assert 0 <= covered <= window[1] - window[0]
    longest = max((min(e, window[1]) - max(b, window[0]) for b, e in spans), default=0.0)
    assert covered >= longest - 1e-9


@given(SPANS)
def test_lanes_never_overlap_and_are_as_few_as_run_at_once(spans):
    placed = lanes(spans)
    for lane in set(placed):
        own = sorted(span for span, at in zip(spans, placed, strict=True) if at == lane)
        assert all(first[1] <= second[0] for first, second in pairwise(own))
    if all(began < ended for began, ended in spans):
        assert max(placed, default=-1) + 1 == max(running(spans, (0, 100))[1])


@given(SPANS)
def test_the_number_running_returns_to_none(spans):
    times, counts = running(spans, (0, 100))
    assert times == sorted(times)
    assert min(counts) >= 0
    assert counts[-1] == 0
    covered = sum(b - a for a, b, n in zip(times, times[1:], counts, strict=False) if n)
    assert covered == pytest.approx(covered_s(spans, (0, 100)))


@given(
    waits=st.lists(st.tuples(st.floats(0.1, 50), st.floats(0, 1)), min_size=2, max_size=9),
    spans=SPANS,
    repeats=st.integers(1, 2),
)
@example(waits=[(1.0, 1.0), (1.0, 1.0)], spans=[], repeats=1)  # nothing but waiting
def test_ratios_lie_between_none_and_all(waits, spans, repeats):
    book, at = Book(), 0.0
    for number, (step_s, share) in enumerate(waits, start=1):
        book.step(number, (at, at + share * step_s), step_s=step_s, sync_s=0.0)
        book.rollout(f"g{number}_0", *spans, step=number)
        at += step_s
    run: VariantRun = book.run(warm=0, repeats=repeats)
    numbers = measure(run)
    slack = 1e-6  # Unix seconds are kept to 1e-10 or so
    assert -slack <= numbers.trainer_idle_ratio.overall <= 1 + slack
    assert -slack <= numbers.generation_idle_ratio <= 1 + slack
    steps = numbers.seconds_per_step
    assert steps.least <= steps.median <= steps.most
    assert steps.least - slack <= steps.overall <= steps.most + slack
    best = bound(run, run)
    assert -slack <= best.trainer_idle_ratio <= 1 + slack
    assert best.seconds <= steps.overall + slack
