"""The default formula: the published one, changed so that no document earns by drawing less, by repeating
itself or by failing on purpose.

    R = (0.2·r_num + 0.3·M·r_num + 0.5·L + 0.2·T) / (sum of the weights of the terms present)

An image is **new** unless it repeats an earlier one or is an edit without effect (`rewards.repeats`). A tag
without a new image is **wasted**, whether it is invalid, failed or gave a repeat. N: the requested number.
The **cost** of a tag too many or wasted is 0.3, or 1/N if that is less.

- r_num, by the requested number:
    - N: min(new, N) / N, less the cost of each tag above the places. Places: N, or the number of required
      tools if that is more;
    - at least one (99): 1 with a new image, else 0. Any number (0): 1. None (-1): 1 without a tag, else 0;
    - images are due and every tag is valid: 0.1 at least, the token for trying.
- M: unit(mean of the image axes) · (1 - cost)^wasted; 0 without a new image, and for more than 10 tags where
  the number is free (0 or 99). The image judge sees new images only.
- L: unit(mean of the text judge's axes). No prose: prose is graded 1. What a grade of the tags has above 1 is
  multiplied by (1 - cost)^wasted, and by the share of the due images (N, else one) that are there.
- T: the weights of the required tools with a new image, relative to those of all required tools. Left out
  where no tool is required.
- Any number, no required tool, no tag: M and the tags are graded 3, which is neutral.
- None allowed: without a tag, M and the tags leave the sum; with one, they are graded 1. T is left out.
- No prose and no new image: r_num is 0.
- A tag that was refused for its number (`tools.max_requests`) is not wasted, but needs a place.

The split does not matter. Axioms, for documents that differ only as said:

1. R is in [0, 1], and is the sum above.
2. A higher grade never lowers R.
3. A wasted tag that becomes a new image never lowers R.
4. A wasted tag added to a document with tags never raises R; to one without, by at most 0.02.
5. While fewer images are there than requested, one more never lowers R.
6. Any number, no required tool: one to ten new images never score below none if tags and images are graded 3
   or more, and never above it if they are graded 3 or less.
7. A new image of a required tool that had none never lowers R while there is a place.
8. None allowed: a tag never raises R.
9. Without prose and a new image, R is 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from policy.scoring import Score
from policy.tools import weights
from rewards import rules
from rewards.axes import Axis, known
from rewards.facts import Facts
from rewards.formula import MAX_IMAGES, Formula, Terms, explained, graded, present, unit, weighted_mean
from rewards.rules import AT_LEAST_ONE, EXCESS_COST, FREE, NONE_ALLOWED
from rewards.verdicts import WORST, ImageVerdict, TextVerdict

NEUTRAL = 3
TRIED = 0.1


class FORMULA(Formula):
    """See the module. Reads every registered axis."""

    name = "grounded"
    repeats_shown = False

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(known().values())

    def too_many_images(self, facts: Facts) -> bool:
        return _crowded(facts) or (facts.image_num == NONE_ALLOWED and facts.attempts > 0)

    def needs_image_verdict(self, facts: Facts) -> bool:
        return facts.new > 0 and count(facts) > 0 and not self.too_many_images(facts)

    def score(
        self, facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False
    ) -> Score:
        terms, used = self.terms(facts, text, image, vl=vl)
        return explained(self, facts, terms, used, vl, text, image)

    def terms(
        self, facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False
    ) -> tuple[Terms, Mapping[str, float | None]]:
        """The terms of the sum, and the grade of each axis as it was used (None: left out)."""
        forbidden, axes, read = facts.image_num == NONE_ALLOWED, self.axes, text.grades
        r_num = count(facts)
        used = {axis.name: _text_grade(axis, read, facts) for axis in axes if axis.judge == "text"}
        pictures: float | None = 0.0
        if not facts.attempts and forbidden:
            pictures = None
        elif _abstains(facts):
            pictures = unit(NEUTRAL)
        elif facts.new and r_num and not self.too_many_images(facts):
            used |= present(image).grades
            pictures = _kept(facts) * unit(weighted_mean(graded(axes, used, "image", vl)))
        return {
            "r_num": r_num,
            "L": unit(weighted_mean(graded(axes, used, "text", vl))),
            "M": pictures,
            "tools": None if forbidden else rules.tool_score(facts.tools, facts.succeeded, facts.succeeded),
        }, used


def count(facts: Facts) -> float:
    """r_num. Raises ValueError for a negative number other than -1."""
    asked = facts.image_num
    if asked < NONE_ALLOWED:
        raise ValueError(f"image_num is {asked}; it must be -1, 0, 99 or a number of images")
    if not facts.has_text and not facts.new:
        return 0.0
    if asked == NONE_ALLOWED:
        return 0.0 if facts.attempts else 1.0
    tried = TRIED if facts.attempts and not facts.invalid else 0.0
    if asked in (FREE, AT_LEAST_ONE):
        return 1.0 if asked == FREE or facts.new else tried
    excess = max(0, facts.attempts - places(facts))
    return max(min(facts.new, asked) / asked - _cost(facts) * excess, tried)


def places(facts: Facts) -> int:
    """How many tags a document may have."""
    if facts.image_num in (FREE, AT_LEAST_ONE):
        return MAX_IMAGES
    return 0 if facts.image_num == NONE_ALLOWED else max(facts.image_num, len(_required(facts)))


def _required(facts: Facts) -> Collection[str]:
    return set(facts.tools) & weights().keys()


def _text_grade(axis: Axis, grades: Mapping[str, float], facts: Facts) -> float | None:
    """The grade that is used in L; None: left out of L."""
    if axis.about == "prose":
        return grades[axis.name] if facts.has_text else WORST
    if facts.image_num == NONE_ALLOWED:
        return WORST if facts.attempts else None
    if _abstains(facts):
        return NEUTRAL
    due = 1 if facts.image_num in (FREE, AT_LEAST_ONE) else facts.image_num
    there = min(facts.new, due) / due
    return WORST + there * _kept(facts) * (grades[axis.name] - WORST)


def _abstains(facts: Facts) -> bool:
    """Whether the document has no tag where nothing asks for one."""
    return facts.image_num == FREE and not (facts.attempts or _required(facts)) and facts.has_text


def _crowded(facts: Facts) -> bool:
    """Whether there are too many tags where their number is free."""
    return facts.image_num in (FREE, AT_LEAST_ONE) and facts.attempts > MAX_IMAGES


def _kept(facts: Facts) -> float:
    """The factor that wasted tags leave of the grades of tags and images.

    It does not depend on the number of images: with a share, more images would dilute a failure.
    """
    return (1 - _cost(facts)) ** (facts.attempts - facts.too_many - facts.new)


def _cost(facts: Facts) -> float:
    free = facts.image_num in (FREE, AT_LEAST_ONE)
    return EXCESS_COST if free else min(EXCESS_COST, 1 / facts.image_num)
