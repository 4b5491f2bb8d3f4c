"""A document as data: text, images and invalid tags, in order.

Invariants:
- the number and order of parts never change, so an image always stays with its tag;
- `<image>` in text is plain text;
- every tag, valid or not, counts as an attempt.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from workers.messages import BlobRef, Details, Failure, Message, Outcome, Success, Text


class Tag(Message):
    """A valid tag: the name of its tool (`policy.tools`), what the image should show, and exactly that tool's
    parameters.
    """

    source: str
    description: str
    params: dict[str, str | int]


class TextPart(Message):
    type: Literal["text"] = "text"
    text: str


class ImagePart(Message):
    """A valid tag and, once its request ended, the outcome. `index` counts all tags of the document from
    0.
    """

    type: Literal["image"] = "image"
    index: int
    tag: Tag
    raw: str
    request_id: str = ""
    outcome: Outcome | None = None

    @property
    def blob(self) -> BlobRef | None:
        """The image, if there is one."""
        result = self.outcome.result if self.outcome else None
        return result.images[0] if isinstance(result, Success) and result.images else None

    @property
    def failure(self) -> Failure | None:
        result = self.outcome.result if self.outcome else None
        return result if isinstance(result, Failure) else None


class InvalidPart(Message):
    """Text that starts like a tag but is not valid. Counts as an attempt. `reason`: why it is invalid;
    `too_many`: only because the document had its most tags already.
    """

    type: Literal["invalid"] = "invalid"
    index: int
    raw: str
    reason: str
    too_many: bool = False


Part = Annotated[TextPart | ImagePart | InvalidPart, Field(discriminator="type")]


class Task(Message):
    """One row of the dataset.

    `image_num`: -1: no image allowed, 0: any number, 99: at least one, N: exactly N.
    """

    question: Text
    image_num: int = 0
    tools: tuple[str, ...] = ()
    split: str = "train"
    data_source: str = "interleaved"
    inputs: tuple[BlobRef, ...] = ()


class Document(Message):
    """The document of one rollout. `truncated`: the token limit cut it; `out_of_time`: its time-out did."""

    rollout_id: str
    task: Task
    parts: tuple[Part, ...]
    truncated: bool = False
    out_of_time: bool = False
    extra: Details = Field(default_factory=dict)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))

    @property
    def invalid(self) -> tuple[InvalidPart, ...]:
        return tuple(part for part in self.parts if isinstance(part, InvalidPart))

    @property
    def attempts(self) -> int:
        """The number of tags, valid or not."""
        return len(self.images) + len(self.invalid)

    @property
    def text(self) -> str:
        """The text without tags."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart)).strip()
