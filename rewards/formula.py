"""The base class of reward formulas, and the arithmetic that they share. Pure functions.

A formula turns the counts of a document and the judges' verdicts into a reward in [0, 1]. The terms are the
published ones (LLM-I, arXiv 2509.13642) and T, which only `grounded` has:

    L = unit(weighted mean of the text judge's axes)     unit(x) = (x - 1) / 4, from 1..5 to 0..1
    M = unit(weighted mean of the image judge's axes)
    R = (0.2·r_num + 0.3·M·r_num + 0.5·L + 0.2·T) / (sum of the weights of the terms present)

Without T the weights sum to 1, as published.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue

from policy.scoring import Score
from rewards.axes import PUBLISHED, Axis
from rewards.facts import Facts
from rewards.verdicts import ImageVerdict, TextVerdict

WEIGHTS = {"r_num": 0.2, "M": 0.3, "L": 0.5, "tools": 0.2}
MAX_IMAGES = 10
Terms = Mapping[str, float | None]
"""`r_num`, `M`, `L` and `tools` (T), each in [0, 1]; None: not in the sum."""


class Formula(ABC):
    """One reward formula.

    `name`: its name in the configuration (`reward.formula`) and in the breakdown. `failures_lower`: whether
    the image judge lowers its grades for failed images; False where the formula counts failures itself.
    `repeats_shown`: whether the image judge sees images that add nothing (`rewards.repeats`); False where the
    formula counts them itself. Then a copy of a good picture does not raise the mean of bad ones.
    """

    name: ClassVar[str]
    failures_lower: ClassVar[bool] = False
    repeats_shown: ClassVar[bool] = True

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that it reads. The published ones are graded in any case."""
        return PUBLISHED

    def too_many_images(self, facts: Facts) -> bool:
        """Whether there are so many images that the formula does not look at them.

        Such a document is scored also when infrastructure failed some of its tools: those tags count as
        images. If it were masked, a document would escape this rule the more often, the more tags it has.
        """
        return False

    @abstractmethod
    def needs_image_verdict(self, facts: Facts) -> bool:
        """Whether to request the image judge. False where its verdict could not change the reward."""

    @abstractmethod
    def score(
        self, facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False
    ) -> Score:
        """The score of a document that is not masked.

        `image` may be None only where `needs_image_verdict` is False. `vl`: the policy reads images. Raises
        `ValueError` when a verdict is missing.
        """


def unit(grade: float) -> float:
    """A grade of 1..5 mapped to 0..1."""
    return (grade - 1) / 4


def weighted_mean(grades: Sequence[tuple[float, float]]) -> float:
    """The mean of (weight, grade) pairs; of one pair its grade, exactly."""
    if len(grades) == 1:
        return grades[0][1]
    return sum(weight * grade for weight, grade in grades) / sum(weight for weight, _ in grades)


def graded(
    axes: Sequence[Axis], grades: Mapping[str, float | None], judge: str, vl: bool
) -> list[tuple[float, float]]:
    """(weight, grade) of each of this judge's axes that has a grade."""
    pairs = [(axis.weight_for(vl), grades.get(axis.name)) for axis in axes if axis.judge == judge]
    return [(weight, grade) for weight, grade in pairs if grade is not None]


def present(image: ImageVerdict | None) -> ImageVerdict:
    """Raises `ValueError` for a verdict that is missing."""
    if image is None:
        raise ValueError("the document has images, so the image judge's verdict is needed")
    return image


def reward(terms: Terms) -> float:
    """R of these terms, in [0, 1]."""
    total = weight = 0.0
    for name, value in terms.items():
        if value is not None:
            weight += WEIGHTS[name]
            total += WEIGHTS[name] * value * ((terms["r_num"] or 0.0) if name == "M" else 1.0)
    return min(1.0, max(0.0, total / weight))


def explained(
    formula: Formula,
    facts: Facts,
    terms: Terms,
    used: Mapping[str, float | None],
    vl: bool,
    text: TextVerdict,
    image: ImageVerdict | None,
) -> Score:
    """The reward with its breakdown: terms, grades as used, verdicts, counts."""
    shown = [axis for axis in formula.axes if axis.judge == "text" or axis not in PUBLISHED]
    breakdown: dict[str, JsonValue] = {
        "formula": formula.name,
        **terms,
        "weights": {name: weight for name, weight in WEIGHTS.items() if terms[name] is not None},
        "axis_weights": {axis.name: axis.weight_for(vl) for axis in shown},
        "axes": dict(used),
        "verdicts": {"text": dict(text.scores), "image": dict(image.scores) if image else None},
        "counts": {
            "asked": facts.image_num,
            "images": facts.images,
            "failed": facts.failed,
            "invalid": facts.invalid,
        },
        "caught": {
            "repeated": facts.repeated,
            "unchanged": facts.unchanged,
            "too_many": facts.too_many,
        },
        "tools_required": list(facts.tools),
        "tools_attempted": list(facts.attempted),
        "tools_succeeded": list(facts.succeeded),
    }
    return Score(reward=reward(terms), breakdown=breakdown)
