"""The judges' prompts: from payload to chat messages.

Invariants:
- The order is rubric, task, given images, document: what documents share is first, for prefix caching.
- The order of parts is the document's.
- Control tokens in text that a model or a service wrote are broken up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from rewards.judges.parts import ImagePiece, ShownImage, ShownInvalid, ShownTag, ShownText
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.rubrics import image_rubric, text_rubric
from workers.messages import BlobRef
from workers.text.control_tokens import inert

FAILURES_LOWER = "Every place marked [NO PICTURE lowers all three grades strongly."
FAILURES_ELSEWHERE = "Do not lower a grade for a place marked [NO PICTURE; it is counted elsewhere."

Chat = list[dict[str, Any]]


def text_chat(payload: JudgeTextPayload) -> Chat:
    """The text judge's prompt, plain text."""
    task = [f"# The task\n{payload.question}"]
    if payload.inputs:
        task.append(f"[The user gave {payload.inputs} picture(s), not shown to you.]")
    if payload.tools:
        task.append(f"[The right tools for this task: {', '.join(payload.tools)}.]")
    document = "".join(_as_text(part) for part in payload.parts) or "[empty]"
    user = inert("\n".join([*task, "", "# The document", document, "", "# Your grades"]))
    return [{"role": "system", "content": text_rubric(payload.axes)}, {"role": "user", "content": user}]


def image_chat(payload: JudgeImagePayload, show: Callable[[BlobRef], str], max_images: int) -> Chat:
    """The image judge's prompt. `show` and `max_images` as in `seen`."""
    content = seen(payload.question, payload.inputs, payload.parts, show, max_images)
    content.append(text(FAILURES_LOWER if payload.failures_lower else FAILURES_ELSEWHERE))
    content.append(text("# Your grades"))
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
) -> list[dict[str, Any]]:
    """Task, given images and document with its pictures in place, as chat content.

    `show`: returns an image's URL (a data URI). At most `max_images` images are included, the document's
    before the given ones; a line states what is left out.
    """
    pictures = sum(isinstance(part, ShownImage) and part.blob is not None for part in parts)
    room = max(0, max_images - pictures)
    content: list[dict[str, Any]] = [text(f"# The task\n{question}")]
    for number, given in enumerate(inputs[:room], start=1):
        content += [text(f"GIVEN {number}:"), image(show(given))]
    if len(inputs) > room:
        content.append(text(f"[{len(inputs) - room} more given picture(s), not shown.]"))
    content.append(text("# The document"))
    number = 0
    for part in parts:
        if not isinstance(part, ShownImage):
            content.append(text(_as_text(part)))
        elif part.blob is None:
            content.append(text(f"[NO PICTURE could be made here: {part.tag.description}]"))
        else:
            number += 1
            content.append(
                text(f"PICTURE {number}, by {part.tag.source}, meant to show: {part.tag.description}")
            )
            shown = number <= max_images
            content.append(image(show(part.blob)) if shown else text("[not shown]"))
    return [part for part in content if part.get("text") != ""]


def _as_text(part: ShownText | ShownTag | ShownInvalid) -> str:
    if isinstance(part, ShownText):
        return part.text
    if isinstance(part, ShownInvalid):
        return f"\n[BROKEN TAG ({part.reason}): {part.raw}]\n"
    params = json.dumps(part.params, ensure_ascii=False)
    return f"\n[TAG by {part.source}: {part.description} | {params}]\n"


def text(words: str) -> dict[str, Any]:
    """A text part of a chat message."""
    return {"type": "text", "text": inert(words)}


def image(url: str) -> dict[str, Any]:
    """An image part of a chat message."""
    return {"type": "image_url", "image_url": {"url": url}}
