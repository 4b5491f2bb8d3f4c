"""From counts and verdicts to a reward in [0, 1] with its breakdown. Pure functions.

Both formulas share the published shape (LLM-I, arXiv 2509.13642), where unit(x) = (x - 1) / 4 maps 1..5
onto 0..1:

    L = unit((a·Text + b·Image) / (a + b))      (a, b) = (1.4, 0.6), for models that read images (1.5, 0.5)
    M = unit(mean of the image judge's three axes)
    R = 0.2·r_num + 0.3·M·r_num + 0.5·L

`llmi` is exactly that. Its one c, for r_num, for "more than 10" and for "no image", counts the images that
came out, as the published code counts the placeholders that its tools left in the text: failed and invalid
tags vanish. More than 10 images: M from 1,1,1. No image: M from 5,5,5. No prose: Text = 1.

`grounded` (the default) closes the holes by one principle: **what is missing though due counts as worst;
what is missing and not due leaves the sum**, whose weights are then renormalised:

    R = (0.2·r_num + 0.3·M·r_num + 0.5·L + 0.2·T) / (sum of the weights of the terms present)

- r_num: only images that are there fill what was asked; every tag, failed or invalid too, can be one too
  many.
- M = images/attempts · unit(mean of the axes): each failed or invalid tag is an image judged 1,1,1. More
  than 10 attempts: M = 0. No attempt: M = 0 when images were due (image_num > 0), else it leaves the sum.
- Image = 1 when a tag is invalid (the weakest tag decides), or when images were due and no tag stands. No
  tag and none due: Image leaves L. No prose: Text = 1.
- T: the score of the required tools (`rules.tool_score`). No tool required: it leaves the sum.

Invariants of `grounded`: in [0, 1]; never falls when an axis rises, or when a failed or invalid tag becomes
an image, all else equal; never rises by an added invalid tag.
"""

from __future__ import annotations

from pydantic import JsonValue

from policy.scoring import Score
from rewards import rules
from rewards.facts import Facts
from rewards.settings import RewardSettings
from rewards.verdicts import BEST_IMAGES, WORST_IMAGES, ImageVerdict, TextVerdict

COUNT, IMAGES, TEXT, TOOLS = 0.2, 0.3, 0.5, 0.2
MAX_IMAGES = 10
WORST = 1


def reward(settings: RewardSettings, facts: Facts, text: TextVerdict, image: ImageVerdict | None) -> Score:
    """The score of a document that is not masked. `image` may be None only where `needs_image_verdict` is
    false.
    """
    formula = llmi if settings.formula == "llmi" else grounded
    return formula(facts, text, image, vl=settings.vl)


def needs_image_verdict(settings: RewardSettings, facts: Facts) -> bool:
    """Whether the image judge has anything to look at whose answer could matter."""
    counted = facts.images if settings.formula == "llmi" else facts.attempts
    return facts.images > 0 and counted <= MAX_IMAGES


def llmi(facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False) -> Score:
    """The published formula, holes included."""
    r_num = rules.count_score(facts.image_num, facts.images, facts.split)
    if facts.images > MAX_IMAGES:
        judged = WORST_IMAGES
    elif facts.images == 0:
        judged = BEST_IMAGES
    else:
        judged = _present(image)
    prose = text.text if facts.has_text else WORST
    language = _language(prose, text.image_tags, vl)
    pictures = _unit(judged.mean)
    value = COUNT * r_num + IMAGES * pictures * r_num + TEXT * language
    terms: dict[str, float | None] = {"r_num": r_num, "L": language, "M": pictures, "tools": None}
    used = {"text": prose, "image_tags": text.image_tags, **judged.scores}
    return _score("llmi", value, facts, terms, used, vl, text, image)


def grounded(facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False) -> Score:
    """The default formula; see the module's docstring for its definition and why."""
    r_num = rules.count_score_of_attempts(facts.image_num, facts.images, facts.attempts, facts.split)
    tools = rules.tool_score(facts.tools, facts.attempted, facts.succeeded)
    prose = text.text if facts.has_text else WORST
    tags: int | None = text.image_tags
    if facts.invalid or (facts.images_due and not facts.attempts):
        tags = WORST
    elif not facts.attempts:
        tags = None
    language = _language(prose, tags, vl)
    used: dict[str, int | None] = {"text": prose, "image_tags": tags}
    pictures: float | None = 0.0
    if facts.attempts == 0 and not facts.images_due:
        pictures = None
    elif facts.images > 0 and facts.attempts <= MAX_IMAGES:
        judged = _present(image)
        used |= judged.scores
        pictures = facts.images / facts.attempts * _unit(judged.mean)
    total = COUNT * r_num + TEXT * language
    weight = COUNT + TEXT
    if pictures is not None:
        total += IMAGES * pictures * r_num
        weight += IMAGES
    if tools is not None:
        total += TOOLS * tools
        weight += TOOLS
    terms = {"r_num": r_num, "L": language, "M": pictures, "tools": tools}
    return _score("grounded", total / weight, facts, terms, used, vl, text, image)


def _unit(axis: float) -> float:
    return (axis - 1) / 4


def _language(text: int, image_tags: int | None, vl: bool) -> float:
    if image_tags is None:
        return _unit(text)
    a, b = axis_weights(vl)
    return _unit((a * text + b * image_tags) / (a + b))


def axis_weights(vl: bool) -> tuple[float, float]:
    """(a, b): how much the text judge's two axes weigh in L."""
    return (1.5, 0.5) if vl else (1.4, 0.6)


def _present(image: ImageVerdict | None) -> ImageVerdict:
    if image is None:
        raise ValueError("the document has images, so it needs the image judge's verdict")
    return image


def _score(
    formula: str,
    value: float,
    facts: Facts,
    terms: dict[str, float | None],
    used: dict[str, int] | dict[str, int | None],
    vl: bool,
    text: TextVerdict,
    image: ImageVerdict | None,
) -> Score:
    """The reward with all that it was made of: terms (None: left the sum), axes as used, verdicts as given,
    counts.
    """
    a, b = axis_weights(vl)
    weights = {"r_num": COUNT, "M": IMAGES, "L": TEXT, "tools": TOOLS}
    breakdown: dict[str, JsonValue] = {
        "formula": formula,
        **terms,
        "weights": {name: weight for name, weight in weights.items() if terms[name] is not None},
        "axis_weights": {"text": a, "image_tags": b},
        "axes": dict(used),
        "verdicts": {"text": dict(text.scores), "image": dict(image.scores) if image else None},
        "counts": {
            "asked": facts.image_num,
            "images": facts.images,
            "failed": facts.failed,
            "invalid": facts.invalid,
        },
        "tools_required": list(facts.tools),
        "tools_attempted": list(facts.attempted),
        "tools_succeeded": list(facts.succeeded),
    }
    return Score(reward=min(1.0, max(0.0, value)), breakdown=breakdown)
