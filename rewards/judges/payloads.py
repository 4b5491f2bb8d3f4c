"""The payloads of the judges' jobs: the task and the document's parts in order.

Invariants:
- The order of parts is the document's. Tags that were refused for their number (`tools.max_requests`) are
  left out: the judges would grade what was not tried. `grounded` counts them, `llmi` does not, so the
  published configurations refuse none.
- Equal documents give equal payloads: no ids, no times.
- Images are references, never bytes.
- A payload fits into a message of the queue; `rewards.judges.shorten` cuts what is too long.
- A payload names its judge (`judge`; empty: any), so that verdicts of two judges never mix, and the axes to
  grade in addition to the published ones (`axes`).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue, model_validator

from policy.document import Document, ImagePart, InvalidPart, Part, TextPart
from rewards.judges import shorten
from rewards.judges.parts import ImagePiece, ShownImage, ShownInvalid, ShownTag, ShownText, TextPiece
from rewards.repeats import wasted
from workers.messages import BlobRef, Message, Success


class JudgeTextPayload(Message):
    """For the text judge: the prose and the tags, without pictures. `inputs`: number of the user's images."""

    question: str
    tools: tuple[str, ...] = ()
    inputs: int = Field(default=0, ge=0)
    parts: tuple[TextPiece, ...]
    judge: str = ""
    axes: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Document, *, judge: str = "", axes: tuple[str, ...] = ()) -> JudgeTextPayload:
        task = document.task
        parts = tuple(_text_piece(part) for part in _judged(document))
        whole = cls(
            question=task.question,
            tools=task.tools,
            inputs=len(task.inputs),
            parts=parts,
            judge=judge,
            axes=axes,
        )
        return shorten.for_message(whole)


class JudgeImagePayload(Message):
    """For the image judge: the user's images and the document with its pictures in place, at least one.

    `failures_lower`: a failed image lowers the grades (the published formula); otherwise the formula counts
    failures itself.
    """

    question: str
    inputs: tuple[BlobRef, ...] = ()
    parts: tuple[ImagePiece, ...]
    failures_lower: bool = False
    judge: str = ""
    axes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_an_image(self) -> JudgeImagePayload:
        if not self.images:
            raise ValueError("the document has no image to judge")
        return self

    @property
    def images(self) -> tuple[ShownImage, ...]:
        """The images that were made."""
        return tuple(part for part in self.parts if isinstance(part, ShownImage) and part.blob is not None)

    @classmethod
    def of(
        cls,
        document: Document,
        *,
        failures_lower: bool = False,
        repeats_shown: bool = True,
        judge: str = "",
        axes: tuple[str, ...] = (),
    ) -> JudgeImagePayload:
        """`repeats_shown`: False leaves out the images that add nothing (`rewards.repeats`)."""
        task, hidden = document.task, {} if repeats_shown else wasted(document)
        shown = [
            part for part in _judged(document) if not (isinstance(part, ImagePart) and part.index in hidden)
        ]
        whole = cls(
            question=task.question,
            inputs=task.inputs,
            parts=tuple(image_piece(part) for part in shown),
            failures_lower=failures_lower,
            judge=judge,
            axes=axes,
        )
        return shorten.for_message(whole)


def _judged(document: Document) -> list[Part]:
    return [part for part in document.parts if not (isinstance(part, InvalidPart) and part.too_many)]


def _text_piece(part: TextPart | ImagePart | InvalidPart) -> ShownText | ShownTag | ShownInvalid:
    if isinstance(part, TextPart):
        return ShownText(text=part.text)
    if isinstance(part, InvalidPart):
        return ShownInvalid(raw=part.raw, reason=part.reason)
    return _tag(part)


def image_piece(part: TextPart | ImagePart | InvalidPart) -> ShownText | ShownImage | ShownInvalid:
    """A part of a document as the image judge gets it."""
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
    """The provider's caption, or the title of the page where the picture was found."""
    for key in ("caption", "title"):
        value = source.get(key)
        if isinstance(value, str) and value:
            return value
    return ""
