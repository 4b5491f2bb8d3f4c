"""What the judges are sent: the task and the document's parts in order, images by reference.

Invariants: the order of parts is the document's; a payload holds nothing that differs between two equal
documents (no ids, no times), so that equal questions have equal keys; no bytes; a payload fits into a message
of the queue (`rewards.judges.shorten` cuts what is too long); a payload says which judge it wants (`judge`,
empty: whichever the worker has), so that verdicts of two judges never mix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from policy.document import Document, ImagePart, InvalidPart, Source, TextPart
from rewards.judges import shorten
from workers.messages import BlobRef, Message, Success


class ShownText(Message):
    type: Literal["text"] = "text"
    text: str


class ShownTag(Message):
    """A valid tag as the model wrote it."""

    type: Literal["tag"] = "tag"
    source: Source
    description: str
    params: dict[str, str | int]


class ShownInvalid(Message):
    """Something that opened as a tag and is none, with the reason."""

    type: Literal["invalid"] = "invalid"
    raw: str
    reason: str


class ShownImage(Message):
    """Where an image belongs: the picture (None when it failed), the tag behind it, the provider's caption
    if any.
    """

    type: Literal["image"] = "image"
    tag: ShownTag
    blob: BlobRef | None = None
    caption: str = ""


TextPiece = Annotated[ShownText | ShownTag | ShownInvalid, Field(discriminator="type")]
ImagePiece = Annotated[ShownText | ShownImage | ShownInvalid, Field(discriminator="type")]


class JudgeTextPayload(Message):
    """For the text judge: the prose and the tags, without any picture. `inputs` counts the user's own
    images.
    """

    question: str
    tools: tuple[str, ...] = ()
    inputs: int = Field(default=0, ge=0)
    parts: tuple[TextPiece, ...]
    judge: str = ""

    @classmethod
    def of(cls, document: Document, *, judge: str = "") -> JudgeTextPayload:
        task = document.task
        parts = tuple(_text_piece(part) for part in document.parts)
        whole = cls(
            question=task.question, tools=task.tools, inputs=len(task.inputs), parts=parts, judge=judge
        )
        return shorten.for_message(whole)


class JudgeImagePayload(Message):
    """For the image judge: the user's own images and the document with its pictures in place, at least one.

    `failures_lower`: a failed image lowers the grades, as the published formula has it; the `grounded` one
    counts failures itself.
    """

    question: str
    inputs: tuple[BlobRef, ...] = ()
    parts: tuple[ImagePiece, ...]
    failures_lower: bool = False
    judge: str = ""

    @model_validator(mode="after")
    def _something_to_see(self) -> JudgeImagePayload:
        if not self.images:
            raise ValueError("the document has no image to judge")
        return self

    @property
    def images(self) -> tuple[ShownImage, ...]:
        """The images that are there."""
        return tuple(part for part in self.parts if isinstance(part, ShownImage) and part.blob is not None)

    @classmethod
    def of(cls, document: Document, *, failures_lower: bool = False, judge: str = "") -> JudgeImagePayload:
        task = document.task
        whole = cls(
            question=task.question,
            inputs=task.inputs,
            parts=tuple(image_piece(part) for part in document.parts),
            failures_lower=failures_lower,
            judge=judge,
        )
        return shorten.for_message(whole)


def _text_piece(part: TextPart | ImagePart | InvalidPart) -> ShownText | ShownTag | ShownInvalid:
    if isinstance(part, TextPart):
        return ShownText(text=part.text)
    if isinstance(part, InvalidPart):
        return ShownInvalid(raw=part.raw, reason=part.reason)
    return _tag(part)


def image_piece(part: TextPart | ImagePart | InvalidPart) -> ShownText | ShownImage | ShownInvalid:
    """A part of a document as a judge that sees pictures gets it."""
    if isinstance(part, TextPart):
        return ShownText(text=part.text)
    if isinstance(part, InvalidPart):
        return ShownInvalid(raw=part.raw, reason=part.reason)
    result = part.outcome.result if part.outcome else None
    caption = _caption(result.source) if isinstance(result, Success) else ""
    return ShownImage(tag=_tag(part), blob=part.blob, caption=caption)


def _tag(part: ImagePart) -> ShownTag:
    return ShownTag(source=part.tag.source, description=part.tag.description, params=part.tag.params)


def _caption(source: Mapping[str, JsonValue]) -> str:
    """What the provider says the picture shows: its caption, or the title of the page it was found on."""
    for key in ("caption", "title"):
        value = source.get(key)
        if isinstance(value, str) and value:
            return value
    return ""
