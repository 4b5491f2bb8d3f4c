"""Counts of a finished document: images, model failures, invalid tags, tools.

Invariants:
- An infrastructure failure is never counted: it masks the sample (`masking`).
- The literal text `<image>` is only text.
- Every tag, valid or not, is an attempt.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from policy.document import Document
from workers.errors import Cause, Fault
from workers.messages import Failure, Message


class Facts(Message):
    """Counts of one document. `images`: made; `failed`: valid tags that failed by the model's fault."""

    image_num: int = Field(ge=-1)
    split: str = "train"
    tools: tuple[str, ...] = ()
    images: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    invalid: int = Field(default=0, ge=0)
    attempted: tuple[str, ...] = ()
    succeeded: tuple[str, ...] = ()
    has_text: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Facts:
        if not set(self.succeeded) <= set(self.attempted):
            raise ValueError("a tool succeeded that was never attempted")
        return self

    @property
    def tags(self) -> int:
        """Valid tags, successful or not."""
        return self.images + self.failed

    @property
    def attempts(self) -> int:
        return self.tags + self.invalid

    @property
    def images_due(self) -> bool:
        """Whether the task requires at least one image."""
        return self.image_num > 0

    @classmethod
    def of(cls, document: Document) -> Facts:
        """Count a finished document. Raises ValueError when an infrastructure failure masks it."""
        if masking(document):
            raise ValueError("a masked document must not be counted")
        made = [part for part in document.images if part.blob is not None]
        return cls(
            image_num=document.task.image_num,
            split=document.task.split,
            tools=document.task.tools,
            images=len(made),
            failed=len(document.images) - len(made),
            invalid=len(document.invalid),
            attempted=tuple(sorted({part.tag.source for part in document.images})),
            succeeded=tuple(sorted({part.tag.source for part in made})),
            has_text=bool(document.text.replace("<image>", "").strip()),
        )


def masking(document: Document) -> tuple[Failure, ...]:
    """The infrastructure failures of the document's images, in order; empty when it may be judged."""
    failures = []
    for part in document.images:
        failure = part.failure
        if failure is not None:
            if failure.fault is Fault.INFRASTRUCTURE:
                failures.append(failure)
        elif part.outcome is None:
            failures.append(Failure(cause=Cause.INTERNAL, detail=f"tag {part.index} has no outcome"))
        elif part.blob is None:
            failures.append(
                Failure(cause=Cause.INTERNAL, detail=f"tag {part.index} succeeded without an image")
            )
    return tuple(failures)
