"""A search for hacks: an adversary changes documents to raise the reward where nothing about them got better.

What is better is a partial order that does not call the formula (`Work.qualities`). The adversary climbs: it
keeps each change that does not lower the reward, and every document on its way is compared with the one it
started from. The published formula is the control: there the same search finds the known hacks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import pytest
from reward_sketches import ASKED, TOOLS, Kind, Sketch, verdicts

from rewards import formulas
from rewards.formula import Formula
from rewards.formulas import grounded

TOKEN = 0.02  # for a first tag that fails
STARTS, CHANGES = 300, 60


@dataclass(frozen=True)
class Tag:
    """One tag: how it turned out, and the grades that judges would give it and its picture."""

    kind: Kind
    tool: str
    picture: int
    words: int


@dataclass(frozen=True)
class Work:
    """A document with the grades that it deserves."""

    asked: int
    required: tuple[str, ...]
    prose: int  # the grade of its text; 0: no text
    tags: tuple[Tag, ...]

    @property
    def sketch(self) -> Sketch:
        return Sketch(self.asked, self.required, self.prose > 0, tuple((t.kind, t.tool) for t in self.tags))

    def grades(self, *, repeats_shown: bool = False) -> tuple[int, ...]:
        """As the judges give them: the weakest tag decides, pictures are graded together."""
        weakest = min((1 if tag.kind == "invalid" else tag.words for tag in self.tags), default=5)
        kinds = ("new", "repeated", "unchanged") if repeats_shown else ("new",)
        shown = [tag.picture for tag in self.tags if tag.kind in kinds]
        picture = round(sum(shown) / len(shown)) if shown else 1
        return (max(1, self.prose), weakest, picture, picture, picture)

    def qualities(self) -> tuple[float, ...]:
        """What a reader cares about, each the better the higher.

        The text; the requested images that are there; each required tool; tags without an image of their own;
        tags beyond what was requested; how good the new pictures and the weakest tag are.
        """
        new = [tag.tool for tag in self.tags if tag.kind == "new"]
        wanted = {-1: 0, 0: int(bool(self.required or self.tags)), 99: 1}.get(self.asked, self.asked)
        most = {-1: 0, 0: 10, 99: 10}.get(self.asked, max(self.asked, len(self.required)))
        _, weakest, picture, *_ = self.grades()
        if not self.tags:  # no picture is better than a bad one where none is due
            weakest = picture = 5 if wanted else 3
        return (
            self.prose,
            min(len(new) - wanted, 0),
            *(tool in new for tool in self.required),
            -sum(tag.kind not in ("new", "refused") for tag in self.tags),
            -max(0, len(self.tags) - most),
            picture,
            weakest,
        )


def honest(rng: random.Random) -> Work:
    asked = rng.choice(ASKED)
    count = rng.randint(0, 5) if asked in (-1, 0, 99) else max(0, asked - rng.choice((0, 0, 1, 2)))
    return Work(
        asked=asked,
        required=tuple(rng.sample(TOOLS, rng.choice((0, 0, 1, 2)))),
        prose=rng.randint(1, 5),
        tags=tuple(fresh(rng, rng.choice(("new", "new", "new", "failed"))) for _ in range(count)),
    )


def fresh(rng: random.Random, kind: Kind) -> Tag:
    return Tag(kind, rng.choice(TOOLS), rng.randint(1, 5), rng.randint(1, 5))


def changed(work: Work, rng: random.Random) -> Work:
    """One move of the adversary."""
    tags = work.tags
    place = rng.randrange(len(tags)) if tags else 0
    made = [tag for tag in tags if tag.kind == "new"]

    def copied() -> Work:
        return add(replace(rng.choice(made), kind="repeated")) if made else work

    def edited_in_vain() -> Work:
        return add(replace(rng.choice(made), kind="unchanged", tool="edit")) if made else work

    def add(tag: Tag) -> Work:
        return replace(work, tags=(*tags, tag))

    def turned(kind: Kind) -> Work:
        if not tags:
            return work
        return replace(work, tags=(*tags[:place], replace(tags[place], kind=kind), *tags[place + 1 :]))

    moves: tuple[Callable[[], Work], ...] = (
        copied,
        edited_in_vain,
        lambda: add(fresh(rng, "failed")),
        lambda: add(fresh(rng, "invalid")),
        lambda: add(fresh(rng, "refused")),
        lambda: add(fresh(rng, "new")),
        lambda: turned("failed"),
        lambda: turned("invalid"),
        lambda: replace(work, tags=tags[:place] + tags[place + 1 :]),
        lambda: replace(work, tags=()),
        lambda: replace(work, prose=0),
        lambda: replace(work, prose=max(0, work.prose - 1)),
    )
    return rng.choice(moves)()


def score(formula: Formula, work: Work) -> float:
    text, image = verdicts(work.grades(repeats_shown=formula.repeats_shown))
    facts = work.sketch.facts
    verdict = image if formula.needs_image_verdict(facts) else None
    return formula.score(facts, text, verdict).reward or 0.0


def no_better(one: Work, other: Work) -> bool:
    return all(a <= b for a, b in zip(one.qualities(), other.qualities(), strict=True))


def hacks(formula: Formula, seed: int):
    """Pairs of a document and one that scores higher though nothing about it is better."""
    rng = random.Random(seed)
    for _ in range(STARTS):
        start = current = honest(rng)
        at_first = reached = score(formula, start)
        gift = 0.0 if start.tags else TOKEN
        for _ in range(CHANGES):
            found = changed(current, rng)
            if len(found.tags) > 15:
                continue
            value = score(formula, found)
            if value > at_first + gift + 1e-9 and no_better(found, start):
                yield start, found, at_first, value
            if value >= reached:
                current, reached = found, value


@pytest.mark.parametrize("seed", range(3))
def test_no_hack_is_found(seed: int) -> None:
    assert list(islice(hacks(formulas.get("grounded"), seed), 3)) == []


def test_the_search_finds_the_hacks_of_the_published_formula() -> None:
    found = list(islice(hacks(formulas.get("llmi"), 0), 500))
    assert any(start.asked == 0 and start.tags and not end.tags for start, end, *_ in found), "abstaining"
    assert any(end.sketch.new < end.sketch.facts.images for _, end, *_ in found), "repeating"
    failing = [end for _, end, *_ in found if end.tags and not end.sketch.facts.images]
    assert failing, "failing on purpose"


def test_the_search_finds_copies_of_the_best_picture_where_the_image_judge_sees_them() -> None:
    class Shown(grounded.FORMULA):
        repeats_shown = True

    _, end, *_ = next(hacks(Shown(), 1))
    assert end.sketch.new < end.sketch.facts.images
