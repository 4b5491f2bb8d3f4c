"""The judges' prompts: from payload to chat messages.

Invariants:
- The order is rubric, task, given images, document: what documents share is first, for prefix caching. The
  rubric, put together from those of the axes, is the same text for every document.
- The order of parts is the document's.
- Task and document are fenced (`rewards.judges.fence`). No text of a model or a service is outside of that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from policy.tools import tools
from rewards.axes import PUBLISHED, Axis, named
from rewards.judges.fence import DOCUMENT_OVER, MARKS, Content, Mark, Picture, Piece, Written, fenced, text
from rewards.judges.parts import (
    ImagePiece,
    ShownCut,
    ShownImage,
    ShownInvalid,
    ShownTag,
    ShownText,
    TextPiece,
)
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from workers.messages import BlobRef

FAILURES_LOWER = 'Every mark "no picture" lowers all three grades strongly.'
FAILURES_ELSEWHERE = 'Do not lower a grade for a mark "no picture"; it is counted elsewhere.'
Chat = list[dict[str, Any]]
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
TOOLS = {  # a tool of an installed package is described by its own prompt
    "search": "real people, places, objects and events; whatever must be authentic or up to date.",
    "diffusion": "pictures that are imagined, stylised or designed.",
    "code": "charts and diagrams drawn from numbers, by Python plotting code.",
    "edit": "a change to an earlier picture of this document, or to one the user gave.",
}
TEXT_HEAD = f"""\
You grade an illustrated document that a language model wrote for a user. You read only; the pictures are \
not shown to you. Where the author wanted a picture you see a mark "tag by" a tool, then what the tag says: \
what the picture is to show, and the tool's parameters. A mark "broken tag" is an attempt that cannot be read.

{MARKS}
The tools, and what each is for:
{{tools}}

Give {{count}} whole numbers from 1 (worst) to 5 (best).
"""
TEXT_END = """\
Judge only what stands there.
Answer with one JSON object and nothing else: """
IMAGE_HEAD = f"""\
You grade the pictures of an illustrated document that a language model made for a user. First you see the \
task, with any pictures the user gave (marks "given picture"). Then you see the document, its pictures in \
place (marks "picture"), each with what its author meant it to show. Only the document's pictures are \
graded. A mark "no picture" stands where none could be made; the last lines before your grades say what to \
do about it.

{MARKS}
Give {{count}} whole numbers from 1 (worst) to 5 (best), each for all the pictures together; a bad one \
weighs more than a good one.
"""
IMAGE_END = """\
Judge only what you see.
Answer with one JSON object and nothing else: \
"""


def text_rubric(added: Sequence[str] = ()) -> str:
    """The text judge's instructions. `added`: names of axes that are not published."""
    every = TOOLS | {tool.name: tool.prompt for tool in tools().values() if tool.name not in TOOLS}
    lines = "\n".join(f"- {name}: {purpose}" for name, purpose in every.items())
    return _rubric(TEXT_HEAD.replace("{tools}", lines), TEXT_END, _axes("text", added))


def image_rubric(added: Sequence[str] = ()) -> str:
    """The image judge's instructions. `added`: names of axes that are not published."""
    return _rubric(IMAGE_HEAD, IMAGE_END, _axes("image", added))


def _axes(judge: str, added: Sequence[str]) -> list[Axis]:
    return [*(axis for axis in PUBLISHED if axis.judge == judge), *named(added)]


def _rubric(head: str, end: str, axes: Sequence[Axis]) -> str:
    count = NUMBERS.get(len(axes), str(len(axes)))
    answer = ", ".join(f'"{axis.name}": <1-5>' for axis in axes)
    paragraphs = [head.replace("{count}", count), *(f"{axis.rubric.rstrip()}\n" for axis in axes)]
    return "\n".join([*paragraphs, f"{end}{{{answer}}}\n"])


def text_chat(payload: JudgeTextPayload) -> Chat:
    """The text judge's prompt, plain text."""
    about = []
    if payload.inputs:
        about.append(f"The user gave {payload.inputs} picture(s), not shown to you.\n")
    if payload.tools:
        about.append(f"The right tools for this task: {', '.join(payload.tools)}.\n")
    parts = [
        *fenced("task", [Written(payload.question)]),
        *map(text, about),
        text("\n"),
        *fenced("document", _read(payload.parts)),
        text(f"\n{DOCUMENT_OVER}# Your grades"),
    ]
    user = "".join(part["text"] for part in parts)
    return [{"role": "system", "content": text_rubric(payload.axes)}, {"role": "user", "content": user}]


def image_chat(payload: JudgeImagePayload, show: Callable[[BlobRef], str], max_images: int) -> Chat:
    """The image judge's prompt. `show` and `max_images` as in `seen`."""
    content = seen(payload.question, payload.inputs, payload.parts, show, max_images)
    failures = FAILURES_LOWER if payload.failures_lower else FAILURES_ELSEWHERE
    content.append(text(f"{failures}\n\n# Your grades"))
    return [
        {"role": "system", "content": [text(image_rubric(payload.axes))]},
        {"role": "user", "content": content},
    ]


def seen(
    question: str,
    inputs: Sequence[BlobRef],
    parts: Sequence[ImagePiece],
    show: Callable[[BlobRef], str],
    max_images: int,
) -> Content:
    """Task, given images and document with its pictures in place, as chat content.

    `show`: returns an image's URL (a data URI). At most `max_images` images are included, the document's
    before the given ones; a mark states what is left out.
    """
    pictures = sum(isinstance(part, ShownImage) and part.blob is not None for part in parts)
    room = max(0, max_images - pictures)
    task: list[Piece] = [Written(question)]
    for number, given in enumerate(inputs[:room], start=1):
        task += [Mark(f"given picture {number}"), Picture(show(given))]
    if len(inputs) > room:
        task.append(Mark(f"{len(inputs) - room} more given picture(s), not shown"))
    document = fenced("document", _seen(parts, show, max_images))
    return [*fenced("task", task), *document, text(DOCUMENT_OVER)]


def _read(parts: Sequence[TextPiece]) -> Iterator[Piece]:
    """The document for the text judge."""
    for part in parts:
        if isinstance(part, ShownTag):
            yield Mark(f"tag by {part.source}")
            yield Written(f"{part.description} | {json.dumps(part.params, ensure_ascii=False)}")
            yield Mark("tag ends")
        else:
            yield from _words(part)
    if not parts:
        yield Mark("it is empty")


def _seen(parts: Sequence[ImagePiece], show: Callable[[BlobRef], str], max_images: int) -> Iterator[Piece]:
    """The document for a judge that sees its pictures."""
    number = 0
    for part in parts:
        if not isinstance(part, ShownImage):
            yield from _words(part)
        elif part.blob is None:
            yield Mark("no picture could be made here; it was meant to show")
            yield Written(part.tag.description)
            yield Mark("no picture")
        else:
            number += 1
            yield Mark(f"picture {number}, by {part.tag.source}, meant to show")
            yield Written(part.tag.description)
            if number <= max_images:
                yield Mark(f"picture {number} itself")
                yield Picture(show(part.blob))
            else:
                yield Mark(f"picture {number} is not shown")


def _words(part: ShownText | ShownInvalid | ShownCut) -> Iterator[Piece]:
    if isinstance(part, ShownText):
        yield Written(part.text)
    elif isinstance(part, ShownCut):
        yield Mark(f"{part.characters} more characters, too many for this judge, are left out here")
    else:
        yield Mark("broken tag")
        yield Written(part.raw)
        yield Mark("broken tag ends; the reason it cannot be read")
        yield Written(part.reason)
        yield Mark("reason ends")
