"""Documents as their counts: a task, prose or none, and a list of tags that each turned out in some way.

For tests that score many thousand documents. `Sketch.facts` equals `Facts.of` for the same document.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, replace
from typing import Literal, get_args

from rewards.facts import Facts
from rewards.verdicts import ImageVerdict, TextVerdict

Kind = Literal["new", "repeated", "unchanged", "failed", "invalid", "refused"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TOOLS = ("search", "diffusion", "code", "edit")
WASTED: tuple[Kind, ...] = ("repeated", "unchanged", "failed", "invalid", "refused")
ASKED = (-1, 0, 0, 1, 1, 2, 3, 4, 5, 8, 12, 99)


@dataclass(frozen=True)
class Sketch:
    asked: int
    required: tuple[str, ...]
    prose: bool
    tags: tuple[tuple[Kind, str], ...]

    @property
    def facts(self) -> Facts:
        kinds = [kind for kind, _ in self.tags]
        valid = {tool for kind, tool in self.tags if kind not in ("invalid", "refused")}
        return Facts(
            image_num=self.asked,
            tools=self.required,
            images=sum(kind in ("new", "repeated", "unchanged") for kind in kinds),
            repeated=kinds.count("repeated"),
            unchanged=kinds.count("unchanged"),
            failed=kinds.count("failed"),
            invalid=kinds.count("invalid") + kinds.count("refused"),
            too_many=kinds.count("refused"),
            attempted=tuple(sorted(valid)),
            succeeded=tuple(sorted({tool for kind, tool in self.tags if kind == "new"})),
            has_text=self.prose,
        )

    @property
    def new(self) -> int:
        return sum(kind == "new" for kind, _ in self.tags)

    @property
    def missing_tools(self) -> tuple[str, ...]:
        """Required tools without a new image."""
        made = {tool for kind, tool in self.tags if kind == "new"}
        return tuple(tool for tool in self.required if tool not in made)

    def add(self, kind: Kind, tool: str = "diffusion") -> Sketch:
        return replace(self, tags=(*self.tags, (kind, tool)))

    def without(self, place: int) -> Sketch:
        return replace(self, tags=self.tags[:place] + self.tags[place + 1 :])

    def change(self, place: int, kind: Kind) -> Sketch:
        """The tag at `place` turns out differently."""
        changed = (kind, self.tags[place][1])
        return replace(self, tags=(*self.tags[:place], changed, *self.tags[place + 1 :]))


def random_sketch(rng: random.Random) -> Sketch:
    """Half of the tags gave a new image. A repeat has an image before it, as in every document."""
    tags: list[tuple[Kind, str]] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 2, 3, 4, 5, 8, 11, 14))):
        kind: Kind = "new" if rng.random() < 0.5 else rng.choice(KINDS)
        if kind == "repeated" and all(made != "new" for made, _ in tags):
            kind = "failed"
        tags.append((kind, "edit" if kind == "unchanged" else rng.choice(TOOLS)))
    return Sketch(
        asked=rng.choice(ASKED),
        required=tuple(rng.sample(TOOLS, rng.choice((0, 0, 1, 1, 2, 3)))),
        prose=rng.random() < 0.9,
        tags=tuple(tags),
    )


def random_grades(rng: random.Random) -> tuple[int, ...]:
    """Of the axes text, image_tags, image_quality, task_relevance and text_image_relevance."""
    return tuple(rng.randint(1, 5) for _ in range(5))


@functools.cache
def verdicts(grades: tuple[int, ...]) -> tuple[TextVerdict, ImageVerdict]:
    prose, tags, quality, task, passage = grades
    return (
        TextVerdict(text=prose, image_tags=tags),
        ImageVerdict(image_quality=quality, task_relevance=task, text_image_relevance=passage),
    )
