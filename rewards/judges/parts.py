"""The parts of a document as a judge gets them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workers.messages import BlobRef, Message


class ShownText(Message):
    type: Literal["text"] = "text"
    text: str


class ShownTag(Message):
    """A valid tag as the model wrote it."""

    type: Literal["tag"] = "tag"
    source: str
    description: str
    params: dict[str, str | int]


class ShownInvalid(Message):
    """A tag that does not parse, with the reason."""

    type: Literal["invalid"] = "invalid"
    raw: str
    reason: str


class ShownImage(Message):
    """The place of an image: its tag, the picture (None: it failed) and the provider's caption, if any."""

    type: Literal["image"] = "image"
    tag: ShownTag
    blob: BlobRef | None = None
    caption: str = ""


class ShownCut(Message):
    """The place where the rest of a document is left out, for a judge that takes no more."""

    type: Literal["cut"] = "cut"
    characters: int = Field(ge=1)


TextPiece = Annotated[ShownText | ShownTag | ShownInvalid | ShownCut, Field(discriminator="type")]
ImagePiece = Annotated[ShownText | ShownImage | ShownInvalid | ShownCut, Field(discriminator="type")]
