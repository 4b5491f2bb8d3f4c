"""The rule-based judges of the demo: grades from words and pixels, without a model.

They understand neither meaning nor grammar. They measure whether a document is about what was asked, whether
its tags are specific and use the right tool, and whether its pictures show anything. Grades spread over 1 to
5, so that a policy can learn from them. `words.is_soup` and `chart_text` say which text without sentences and
which strings that are not drawn they recognise.

Invariants: deterministic; equal documents get equal verdicts; a wrong tool or a blank picture never raises a
grade; the source of a verdict is {"judge": "rules"}.

| axis | grade |
|---|---|
| text | 1 without words, and for words without sentences. Else 2, plus 1 each for: at least 12 words; a quarter of the subject words shared with the question; half of them. The last two only if it is no copy of the question. Minus 1 for announcing pictures, minus 1 when over two thirds of the words are repeated. |
| image_tags | 5 without tags, 1 with an invalid one. Else the weakest tag, from 5: minus 2 for a tool that the task does not ask for; minus 1 when less than half of its words are in the question or the passage, minus 2 when less than a fifth; minus 1 for fewer than 3 subject words; minus 1 between two other tags. |
| image_quality | 1 for a blank picture. Else 2, plus 1 each for contrast, for detail, and for 64 pixels a side. |
| task_relevance, text_image_relevance | 1 for no shared word, up to 5 for three fifths of the picture's words (caption of a found picture, else the tag) shared with the question, or with the passages around it. |

Several pictures: their mean, halves rounded down. A failed picture counts as 1 where `failures_lower` is set.
Only the first 50,000 characters are read of the question, the prose, the prose beside a picture, and a tag.
An axis of another package is graded by its own `by_rules`.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageFilter, ImageStat

from rewards.axes import named
from rewards.judges.chart_text import drawn_strings
from rewards.judges.parts import ShownCut, ShownImage, ShownInvalid, ShownTag, ShownText
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.words import all_words, announces, grade, is_copied, is_soup, overlap, subject
from rewards.verdicts import ImageVerdict, TextVerdict, with_axes
from workers import images
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext
from workers.messages import Success
from workers.pixels import scaled_down

SOURCE = {"judge": "rules"}
ENOUGH_WORDS = 12
SUBJECT_WORDS = 3
TOPIC_STEPS = (0.25, 0.5)
TAG_STEPS = (0.2, 0.5)
IMAGE_STEPS = (1e-9, 0.2, 0.4, 0.6)
BLANK_STD, CONTRAST_STD = 2.0, 12.0  # grey levels of 0 to 255
EDGE_LEVEL, DETAIL_SHARE = 32, 0.01
SMALLEST_SIDE = 64
GRADED_PIXELS = 256 * 256
READ_CHARS = 50_000

Piece = ShownText | ShownTag | ShownImage | ShownInvalid | ShownCut


def judge_text(payload: JudgeTextPayload) -> Success:
    """Grade the prose and the tags."""
    grades = {"text": text_grade(payload), "image_tags": tags_grade(payload)} | _added(payload, payload)
    verdict = with_axes(TextVerdict, payload.axes).read(grades, provider="rules")
    return Success(verdict=verdict.scores, source=dict(SOURCE))


def judge_image(payload: JudgeImagePayload, ctx: JobContext) -> Success:
    """Grade the pictures by their pixels and words. Raises InfrastructureFault for an unreadable one."""
    wanted = subject(payload.question[:READ_CHARS])
    quality, task, passage = [], [], []
    for position, part in enumerate(payload.parts):
        if isinstance(part, ShownImage) and part.blob is not None:
            quality.append(quality_grade(images.rgb(ctx.blobs.get(part.blob))))
            caption = part.caption[:READ_CHARS] if part.tag.source == "search" else ""
            shows = subject(caption or meaning(part.tag))
            task.append(1 + grade(overlap(shows, wanted), IMAGE_STEPS))
            around = subject(_around(payload.parts, position))
            passage.append(1 + grade(overlap(shows, around), IMAGE_STEPS))
        elif isinstance(part, ShownImage) and payload.failures_lower:
            for one in (quality, task, passage):
                one.append(1)
    grades = {
        "image_quality": _mean(quality),
        "task_relevance": _mean(task),
        "text_image_relevance": _mean(passage),
    } | _added(payload, payload, ctx)
    verdict = with_axes(ImageVerdict, payload.axes).read(grades, provider="rules")
    return Success(verdict=verdict.scores, source=dict(SOURCE))


def _added(payload: JudgeTextPayload | JudgeImagePayload, *arguments: object) -> dict[str, int]:
    """The grades of axes that are not published."""
    grades = {}
    for axis in named(payload.axes):
        if axis.by_rules is None:
            raise InfrastructureFault(
                Cause.INTERNAL,
                f"the axis {axis.name!r} has no rules; configure a judge model",
                provider="rules",
            )
        grades[axis.name] = axis.by_rules(*arguments)
    return grades


def text_grade(payload: JudgeTextPayload) -> int:
    """The axis `text`."""
    text = "\n".join(part.text for part in payload.parts if isinstance(part, ShownText))[:READ_CHARS]
    question = payload.question[:READ_CHARS]
    wanted = subject(question)
    words = all_words(text)
    if not words or is_soup(text, question):
        return 1
    topic = grade(overlap(subject(text), wanted), TOPIC_STEPS) if wanted else 2
    topic *= not is_copied(text, question)
    repeats = len(set(words)) * 3 < len(words)
    points = 2 + (len(words) >= ENOUGH_WORDS) + topic - announces(text) - repeats
    return max(1, points)


def tags_grade(payload: JudgeTextPayload) -> int:
    """The axis `image_tags`: the grade of the weakest tag."""
    grades = [5]
    wanted = subject(payload.question[:READ_CHARS])
    for position, part in enumerate(payload.parts):
        if isinstance(part, ShownInvalid):
            return 1
        if isinstance(part, ShownTag):
            grades.append(tag_grade(part, wanted, payload.tools, _around(payload.parts, position)))
    return min(grades)


def tag_grade(tag: ShownTag, wanted: frozenset[str], tools: Sequence[str], passage: str) -> int:
    """The grade of one tag. `wanted`: the question's words; `passage`: the prose before and after the tag."""
    shows = subject(meaning(tag))
    points = 5
    if tools and tag.source not in tools:
        points -= 2
    points -= 2 - grade(overlap(shows, wanted | subject(passage)), TAG_STEPS)
    points -= len(shows) < SUBJECT_WORDS
    points -= not all_words(passage)
    return max(1, points)


def meaning(tag: ShownTag) -> str:
    """A tag's description and parameters; of code, only the strings that reach a call that draws."""
    texts = [tag.description]
    for name, value in tag.params.items():
        if name == "code":
            texts += drawn_strings(str(value)[:READ_CHARS])
        else:
            texts.append(str(value))
    return "\n".join(texts)[:READ_CHARS]


def quality_grade(image: Image.Image) -> int:
    """The axis `image_quality` of one picture, from its pixels."""
    grey = scaled_down(image, GRADED_PIXELS).convert("L")
    spread = ImageStat.Stat(grey).stddev[0]
    if spread < BLANK_STD:
        return 1
    # The filter does not change the outermost pixels.
    edges = grey.filter(ImageFilter.FIND_EDGES).crop((1, 1, grey.width - 1, grey.height - 1)).histogram()
    detail = sum(edges[EDGE_LEVEL:]) / max(sum(edges), 1)  # a picture of two rows has only outermost pixels
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


def _mean(grades: Sequence[int]) -> int:
    return max(1, math.ceil(sum(grades) / len(grades) - 0.5))
