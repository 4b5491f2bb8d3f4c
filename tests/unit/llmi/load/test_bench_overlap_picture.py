"""The picture of `llmi bench overlap`: what it shows of a run by hand, and that it is drawn.

The four variants are simulated, so that their numbers are also checked against each other.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from overlap_ledgers import Book
from overlap_simulation import FAST_S, GROUPS, TRAIN_S, N, simulate
from PIL import Image

from llmi.load.overlap.bound import bound, targets
from llmi.load.overlap.numbers import measure
from llmi.load.overlap.panel import Panel
from llmi.load.overlap.picture import COLOURS, draw


@pytest.fixture(scope="module")
def runs():
    return simulate()


def book() -> Book:
    """Steps of 9, 10 and 12 s after the warm one; step 3 is the median."""
    book = Book()
    for number, began, ends in ((1, 0, 5), (2, 10, 16), (3, 19, 23), (4, 29, 38)):
        book.step(number, (began, ends), step_s=12 if number == 4 else 9, sync_s=2)
    book.rollout("c_0", (10, 20), (22, 22.5), step=3)
    book.rollout("d_0", (20, 24), (28, 40), step=4)
    book.request("c_0", "search", 11, 18, 21)
    book.request("d_0", "search", 11, 20, 22)
    book.request("d_0", "search", 11, 21, 35, 1)
    book.request("d_0", "search", 11, 12, 14, 2)  # over before the step began
    book.request("d_0", "judge_text", 30, 31, 33)
    return book


def test_the_panel_is_the_median_step_and_separates_its_batch():
    panel = Panel.of(book().run())
    assert (panel.step.number, panel.step.seconds) == (3, 10)
    assert panel.texts == ([(0, 1), (3, 3.5)], [(1, 5), (9, 10)])
    assert panel.queues["search"] == ([(0, 2)], [(1, 3), (2, 10)])
    assert panel.queues["judge_text"] == ([], [])
    assert panel.most_texts == 2
    assert (panel.lanes("search"), panel.lanes("diffusion")) == (2, 4)


def test_the_trainers_spans_by_hand():
    trainer = Panel.of(book().run()).trainer
    assert trainer == {"waiting": [(0, 4)], "training": [(4, 7), (9, 10)], "sending weights": [(7, 9)]}


def test_the_trainers_time_has_no_gap(runs):
    for run in runs.values():
        panel = Panel.of(run)
        spans = sorted(span for spans in panel.trainer.values() for span in spans)
        assert spans[0][0] == 0
        assert spans[-1][1] == panel.step.seconds
        assert all(first[1] == second[0] for first, second in pairwise(spans))


def test_no_more_is_served_at_once_than_there_are_slots(runs):
    for run in runs.values():
        panel = Panel.of(run)
        assert {queue: panel.lanes(queue) for queue in panel.queues} == dict(run.slots)


def test_a_blocking_step_holds_all_work_of_its_batch_and_no_other(runs):
    panel = Panel.of(runs["blocking"])
    judged = panel.queues["judge_text"]
    assert (len(judged[0]), judged[1]) == (GROUPS * N, [])
    assert max(end for _, end in panel.texts[0]) <= min(begin for begin, _ in panel.queues["diffusion"][0])


def test_simulated_variants_have_the_numbers_that_were_put_in(runs):
    numbers = {name: measure(run) for name, run in runs.items()}
    speeds = [numbers[name].samples_per_s.median for name in ("blocking", "blocking_wide", "coupled", "llmi")]
    assert speeds == sorted(speeds)
    best = bound(runs["blocking"], runs["llmi"])
    assert best.largest == "diffusion"
    assert best.parts["training"] == pytest.approx(TRAIN_S + 0.7, abs=0.3)
    fast = {name: measure(run) for name, run in simulate(FAST_S).items()}
    missed = [target.name for target in targets(numbers, best, fast) if not target.met]
    assert missed == ["samples/s against coupled"]  # 1.59 times: here both have a constant number in flight
    work = [one.queues["diffusion"].service_s for one in numbers.values()]
    assert work == pytest.approx([work[0]] * 4)
    # Six threads for tools: most of the waiting of the blocking variant is in its own line, not in the queue.
    assert numbers["blocking"].queues["code"].wait_p50_s > 5
    assert numbers["llmi"].queues["code"].wait_p50_s == 0


def test_the_picture_shows_full_and_pale_work(runs, tmp_path):
    path = draw([runs["coupled"], runs["llmi"]], tmp_path / "overlap.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1500
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}
    assert {_rgb(COLOURS["judge_image"]), _rgb(COLOURS["diffusion"])} <= colours
    assert _rgb("#d5c0f9") in colours  # diffusion for later steps


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="no variant"):
        draw([], None)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
