"""What the two jobs of an evaluation are sent: one item of a batch; one criterion on one document.

Invariants: no bytes, images by reference; a criterion says which judge it wants, so that the verdicts of two
judges are never mixed in one batch.
"""

from __future__ import annotations

from pydantic import Field

from evaluation.settings import RubricSettings
from policy.document import Document
from rewards.judges import shorten
from rewards.judges.payloads import ImagePiece, ShownImage, image_piece
from workers.messages import BlobRef, Message


class EvaluatePayload(Message):
    """`batch`: the batch's URL; `batch_id`: which batch must be found there."""

    batch: str
    batch_id: str
    item_id: str
    round: int = Field(ge=0)


class RubricPayload(Message):
    """The document with its pictures in place, what it was written for, and the one criterion to judge."""

    question: str
    inputs: tuple[BlobRef, ...] = ()
    parts: tuple[ImagePiece, ...]
    criterion: str = Field(min_length=1)
    judge: str

    @property
    def images(self) -> tuple[ShownImage, ...]:
        """The images that are there."""
        return tuple(part for part in self.parts if isinstance(part, ShownImage) and part.blob is not None)

    @classmethod
    def of(cls, document: Document, criterion: str, rubric: RubricSettings) -> RubricPayload:
        whole = cls(
            question=document.task.question,
            inputs=document.task.inputs,
            parts=tuple(image_piece(part) for part in document.parts),
            criterion=criterion,
            judge=judge_name(rubric),
        )
        return shorten.for_message(whole)


def judge_name(rubric: RubricSettings) -> str:
    """The judge that settings name: "rules", or the model."""
    return rubric.model if rubric.provider == "openai" else "rules"
