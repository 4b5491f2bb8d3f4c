"""The rule-based judges of the demo: grades from words and pixels, no model. They say so: source {"judge":
"rules"}.

They read no meaning. What they can tell is whether a document speaks of what was asked, whether its tags
ask for something specific from the right tool, and whether its pictures show anything; graded over 1 to 5,
so that a policy can climb. Invariants: deterministic; equal documents get equal verdicts; a wrong tool or a
blank picture never raises a grade.

Text: 1 without words; else 2, and one more each for 12 words or more; a subject shared with the question by
a quarter; by half. One less for announcing pictures, and one less when over two thirds of the words are
repetitions.

Image tags: 5 without tags, 1 with an invalid one; else the weakest tag, from 5: two less for a tool the
task does not call for; one less when its words touch the question and the passage by less than half, two
when by less than a fifth; one less with fewer than 3 words that say something; one less when it stands
between two other tags.

Image quality: 1 for a blank picture; else 2, and one more each for contrast, for detail, and for 64 pixels
a side. Task relevance and text-image relevance: 1 for no shared word; up to 5 for three fifths of what the
picture shows (a found picture's own caption; otherwise what the tag asked for) shared with the question, or
with the passages around. Several pictures: their mean, halves rounded down; a failed one counts as 1 where
failures are to lower grades.

Length: the first 50,000 characters are read of the question, of the prose as a whole, of the prose beside a
picture, and of a tag. What comes later neither raises nor lowers a grade.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageFilter, ImageStat

from policy.grammar.python_text import strings
from rewards.judges.parts import ShownImage, ShownInvalid, ShownTag, ShownText
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.pictures import fitted
from rewards.judges.wording import all_words, announces, grade, overlap, subject
from rewards.verdicts import ImageVerdict, TextVerdict
from workers import images
from workers.jobs import JobContext
from workers.messages import Success

SOURCE = {"judge": "rules"}
ENOUGH_WORDS = 12
SAYS_SOMETHING = 3
TOPIC_STEPS = (0.25, 0.5)
TAG_STEPS = (0.2, 0.5)
IMAGE_STEPS = (1e-9, 0.2, 0.4, 0.6)
BLANK_STD, CONTRAST_STD = 2.0, 12.0  # grey levels of 0 to 255
EDGE_LEVEL, DETAIL_SHARE = 32, 0.01
SMALLEST_SIDE = 64
LOOKED_AT_PIXELS = 256 * 256
READ_CHARS = 50_000

Piece = ShownText | ShownTag | ShownImage | ShownInvalid


def judge_text(payload: JudgeTextPayload) -> Success:
    """Grades the prose and the tags."""
    verdict = TextVerdict(text=text_grade(payload), image_tags=tags_grade(payload))
    return Success(verdict=verdict.scores, source=dict(SOURCE))


def judge_image(payload: JudgeImagePayload, ctx: JobContext) -> Success:
    """Grades the pictures from their pixels and words. Raises InfrastructureFault for one that cannot be
    read.
    """
    asked = subject(payload.question[:READ_CHARS])
    quality, task, passage = [], [], []
    for position, part in enumerate(payload.parts):
        if isinstance(part, ShownImage) and part.blob is not None:
            quality.append(quality_grade(images.rgb(ctx.blobs.get(part.blob))))
            caption = part.caption[:READ_CHARS] if part.tag.source == "search" else ""
            shows = subject(caption or meaning(part.tag))
            task.append(1 + grade(overlap(shows, asked), IMAGE_STEPS))
            around = subject(_around(payload.parts, position))
            passage.append(1 + grade(overlap(shows, around), IMAGE_STEPS))
        elif isinstance(part, ShownImage) and payload.failures_lower:
            for grades in (quality, task, passage):
                grades.append(1)
    verdict = ImageVerdict(
        image_quality=_together(quality),
        task_relevance=_together(task),
        text_image_relevance=_together(passage),
    )
    return Success(verdict=verdict.scores, source=dict(SOURCE))


def text_grade(payload: JudgeTextPayload) -> int:
    """The axis `text`."""
    text = "\n".join(part.text for part in payload.parts if isinstance(part, ShownText))[:READ_CHARS]
    asked = subject(payload.question[:READ_CHARS])
    words = all_words(text)
    if not words:
        return 1
    topic = grade(overlap(subject(text), asked), TOPIC_STEPS) if asked else 2
    repeats = len(set(words)) * 3 < len(words)
    points = 2 + (len(words) >= ENOUGH_WORDS) + topic - announces(text) - repeats
    return max(1, points)


def tags_grade(payload: JudgeTextPayload) -> int:
    """The axis `image_tags`: the weakest tag decides."""
    grades = [5]
    asked = subject(payload.question[:READ_CHARS])
    for position, part in enumerate(payload.parts):
        if isinstance(part, ShownInvalid):
            return 1
        if isinstance(part, ShownTag):
            grades.append(tag_grade(part, asked, payload.tools, _around(payload.parts, position)))
    return min(grades)


def tag_grade(tag: ShownTag, asked: frozenset[str], tools: Sequence[str], passage: str) -> int:
    """One tag. `asked`: the words of the question; `passage`: the prose on both sides of the tag."""
    shows = subject(meaning(tag))
    points = 5
    if tools and tag.source not in tools:
        points -= 2
    points -= 2 - grade(overlap(shows, asked | subject(passage)), TAG_STEPS)
    points -= len(shows) < SAYS_SOMETHING
    points -= not all_words(passage)
    return max(1, points)


def meaning(tag: ShownTag) -> str:
    """What a tag says its picture shows: description and parameters; of code, only the texts it writes on
    the chart.
    """
    said = [tag.description]
    for name, value in tag.params.items():
        if name == "code":
            said += [string.text for string in strings(str(value)[:READ_CHARS])]
        else:
            said.append(str(value))
    return "\n".join(said)[:READ_CHARS]


def quality_grade(image: Image.Image) -> int:
    """The axis `image_quality` of one picture, from its pixels."""
    grey = fitted(image, LOOKED_AT_PIXELS).convert("L")
    spread = ImageStat.Stat(grey).stddev[0]
    if spread < BLANK_STD:
        return 1
    # The filter leaves the outermost pixels as they are.
    edges = grey.filter(ImageFilter.FIND_EDGES).crop((1, 1, grey.width - 1, grey.height - 1)).histogram()
    detail = sum(edges[EDGE_LEVEL:]) / max(sum(edges), 1)  # a picture of two rows has nothing but its rim
    return 2 + (spread >= CONTRAST_STD) + (detail >= DETAIL_SHARE) + (min(image.size) >= SMALLEST_SIDE)


def _around(parts: Sequence[Piece], position: int) -> str:
    """The prose directly before and after a part."""
    before = (
        part.text[-READ_CHARS:]
        for part in parts[max(0, position - 1) : position]
        if isinstance(part, ShownText)
    )
    after = (
        part.text[:READ_CHARS] for part in parts[position + 1 : position + 2] if isinstance(part, ShownText)
    )
    return "\n".join((*before, *after))


def _together(grades: Sequence[int]) -> int:
    return max(1, math.ceil(sum(grades) / len(grades) - 0.5))
