"""The default formula: the published one with its gaps closed.

One principle: **a term with something required and missing gets the worst value; a term without anything
required is left out of the sum**. The weights are then renormalised:

    R = (0.2·r_num + 0.3·M·r_num + 0.5·L + 0.2·T) / (sum of the weights of the terms present)

- r_num: only images that were made count towards the requested number; every tag, also a failed or invalid
  one, can be one too many.
- M = images/attempts · unit(mean of the image axes): each failed or invalid tag is an image graded 1. More
  than 10 attempts: M = 0. No attempt: M = 0 when images were due (image_num > 0), else it leaves the sum.
- L = unit(mean of the text judge's axes). Axes about tags are 1 when a tag is invalid (the weakest tag
  decides), or when images were due and there is no tag. No tag and none due: they leave L. No prose: axes
  about prose are 1.
- T: the score of the required tools (`rules.tool_score`). No tool required: it leaves the sum.

Invariants: in [0, 1]; never falls when a grade rises, or when a failed or invalid tag becomes an image, all
else equal; never rises by an added invalid tag.
"""

from __future__ import annotations

from policy.scoring import Score
from rewards import rules
from rewards.axes import Axis, known
from rewards.facts import Facts
from rewards.formula import (
    COUNT,
    IMAGES,
    MAX_IMAGES,
    TEXT,
    TOOLS,
    Formula,
    explained,
    graded,
    present,
    unit,
    weighted_mean,
)
from rewards.verdicts import WORST, ImageVerdict, TextVerdict


class FORMULA(Formula):
    """See the module. Reads every registered axis."""

    name = "grounded"

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(known().values())

    def needs_image_verdict(self, facts: Facts) -> bool:
        return facts.images > 0 and facts.attempts <= MAX_IMAGES

    def score(
        self, facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False
    ) -> Score:
        r_num = rules.count_score_of_attempts(facts.image_num, facts.images, facts.attempts, facts.split)
        tools = rules.tool_score(facts.tools, facts.attempted, facts.succeeded)
        axes = self.axes
        used = {
            axis.name: self._text_grade(axis, text.grades, facts) for axis in axes if axis.judge == "text"
        }
        language = unit(weighted_mean(graded(axes, used, "text", vl)))
        pictures: float | None = 0.0
        if facts.attempts == 0 and not facts.images_due:
            pictures = None
        elif self.needs_image_verdict(facts):
            used |= present(image).grades
            judged = weighted_mean(graded(axes, used, "image", vl))
            pictures = facts.images / facts.attempts * unit(judged)
        total = COUNT * r_num + TEXT * language
        weight = COUNT + TEXT
        if pictures is not None:
            total += IMAGES * pictures * r_num
            weight += IMAGES
        if tools is not None:
            total += TOOLS * tools
            weight += TOOLS
        terms = {"r_num": r_num, "L": language, "M": pictures, "tools": tools}
        return explained(self, total / weight, facts, terms, used, vl, text, image)

    @staticmethod
    def _text_grade(axis: Axis, grades: dict[str, float], facts: Facts) -> float | None:
        """The grade that is used in L; None: left out of L."""
        if axis.about == "prose":
            return grades[axis.name] if facts.has_text else WORST
        if facts.invalid or (facts.images_due and not facts.attempts):
            return WORST
        return grades[axis.name] if facts.attempts else None
