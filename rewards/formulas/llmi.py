"""The published formula (LLM-I, arXiv 2509.13642), with its gaps.

    R = 0.2·r_num + 0.3·M·r_num + 0.5·L
    L = unit((a·text + b·image_tags) / (a + b))   (a, b) = (1.4, 0.6), for models that read images (1.5, 0.5)
    M = unit(mean of image_quality, task_relevance, text_image_relevance)

One count of images serves r_num, "more than 10" and "no image": the images that were made, as the published
code counts the placeholders that its tools left in the text. Failed and invalid tags do not count. More than
10 images: M from 1, 1, 1. There a tag that infrastructure failed counts as an image, and masks nothing. No
image: M from 5, 5, 5. No prose: text = 1.

Where the paper and its released code differ, or only the code says anything, this is the code: the number of
images is exact on every split but "train", there is a limit of ten images, and the score of the required
tools is not in the sum. Three faults of the code are not followed, since they are no part of the formula: a
grade outside of 1 to 5 is refused, a judge that failed masks the sample instead of grading it 1, and the
literal text `<image>` is no image.

Invariant: reads the published axes only, so that a new axis cannot change it.
"""

from __future__ import annotations

from policy.scoring import Score
from rewards import rules
from rewards.facts import Facts
from rewards.formula import MAX_IMAGES, Formula, explained, graded, present, unit, weighted_mean
from rewards.verdicts import WORST, ImageVerdict, TextVerdict


class FORMULA(Formula):
    """See the module."""

    name = "llmi"
    failures_lower = True

    def too_many_images(self, facts: Facts) -> bool:
        return facts.images > MAX_IMAGES

    def needs_image_verdict(self, facts: Facts) -> bool:
        return facts.images > 0 and not self.too_many_images(facts)

    def score(
        self, facts: Facts, text: TextVerdict, image: ImageVerdict | None, *, vl: bool = False
    ) -> Score:
        r_num = rules.count_score(facts.image_num, facts.images, facts.split)
        if self.too_many_images(facts):
            judged = ImageVerdict.worst()
        elif facts.images == 0:
            judged = ImageVerdict.best()
        else:
            judged = present(image)
        used: dict[str, float | None] = {
            "text": text.text if facts.has_text else WORST,
            "image_tags": text.image_tags,
            "image_quality": judged.image_quality,
            "task_relevance": judged.task_relevance,
            "text_image_relevance": judged.text_image_relevance,
        }
        language = unit(weighted_mean(graded(self.axes, used, "text", vl)))
        pictures = unit(weighted_mean(graded(self.axes, used, "image", vl)))
        terms = {"r_num": r_num, "L": language, "M": pictures, "tools": None}
        return explained(self, facts, terms, used, vl, text, image)
