"""Counts of a finished document: images, repeats, model failures, invalid tags, tools.

Invariants:
- An infrastructure failure is never counted: it masks the sample (`masking`). The one exception is a document
  with too many images (`Facts.if_nothing_was_lost`).
- The literal text `<image>` is only text.
- Every tag, valid or not, is an attempt.
"""

from __future__ import annotations

from collections import Counter

from pydantic import Field, model_validator

from policy.document import Document
from rewards.repeats import wasted
from workers.errors import Cause, Fault
from workers.messages import Failure, Message


class Facts(Message):
    """Counts of one document.

    `images`: made. Of these, `repeated` and `unchanged` add nothing (`rewards.repeats`); the others are new.
    `failed`: valid tags that failed by the model's fault. `invalid`: tags that do not parse, and `too_many`
    that were refused only for their number. `attempted`: tools with a valid tag; `succeeded`: tools with a
    new image.
    """

    image_num: int = Field(ge=-1)
    split: str = "train"
    tools: tuple[str, ...] = ()
    images: int = Field(default=0, ge=0)
    repeated: int = Field(default=0, ge=0)
    unchanged: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    invalid: int = Field(default=0, ge=0)
    too_many: int = Field(default=0, ge=0)
    attempted: tuple[str, ...] = ()
    succeeded: tuple[str, ...] = ()
    has_text: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Facts:
        if not set(self.succeeded) <= set(self.attempted):
            raise ValueError("a tool succeeded that was never attempted")
        if self.new < 0 or self.too_many > self.invalid:
            raise ValueError("more images add nothing than were made, or more tags were refused than invalid")
        return self

    @property
    def new(self) -> int:
        """The images that add something to the document."""
        return self.images - self.repeated - self.unchanged

    @property
    def tags(self) -> int:
        """Valid tags, successful or not."""
        return self.images + self.failed

    @property
    def attempts(self) -> int:
        return self.tags + self.invalid

    @classmethod
    def of(cls, document: Document) -> Facts:
        """Count a finished document. Raises ValueError when an infrastructure failure masks it."""
        if masking(document):
            raise ValueError("a masked document must not be counted")
        return cls.if_nothing_was_lost(document)

    @classmethod
    def if_nothing_was_lost(cls, document: Document) -> Facts:
        """Count a finished document as if every tag that infrastructure failed had given its image.

        Only for a document with too many images (`Formula.too_many_images`).
        """
        lost, waste = _lost(document), wasted(document)
        made = [part for part in document.images if part.blob is not None or part.index in lost]
        kinds = Counter(waste.values())
        return cls(
            image_num=document.task.image_num,
            split=document.task.split,
            tools=document.task.tools,
            images=len(made),
            repeated=kinds["repeated"],
            unchanged=kinds["unchanged"],
            failed=len(document.images) - len(made),
            invalid=len(document.invalid),
            too_many=sum(part.too_many for part in document.invalid),
            attempted=tuple(sorted({part.tag.source for part in document.images})),
            succeeded=tuple(sorted({part.tag.source for part in made if part.index not in waste})),
            has_text=bool(document.text.replace("<image>", "").strip()),
        )


def masking(document: Document) -> tuple[Failure, ...]:
    """The infrastructure failures of the document's images, in order; empty when it may be judged."""
    return tuple(_lost(document).values())


def _lost(document: Document) -> dict[int, Failure]:
    """The tags that infrastructure failed, by index."""
    lost: dict[int, Failure] = {}
    for part in document.images:
        failure = part.failure
        if failure is not None:
            if failure.fault is Fault.INFRASTRUCTURE:
                lost[part.index] = failure
        elif part.outcome is None:
            lost[part.index] = Failure(cause=Cause.INTERNAL, detail=f"tag {part.index} has no outcome")
        elif part.blob is None:
            detail = f"tag {part.index} succeeded without an image"
            lost[part.index] = Failure(cause=Cause.INTERNAL, detail=detail)
    return lost
