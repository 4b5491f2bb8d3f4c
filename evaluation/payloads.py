"""The payloads of an evaluation's two jobs: one item of a batch, and one criterion on one document.

Invariants:
- Images are references, never bytes.
- A criterion names its judge, so that the verdicts of two judges are never mixed in one batch.
"""

from __future__ import annotations

from pydantic import Field

from evaluation.settings import RubricSettings
from policy.document import Document
from rewards.judges import shorten
from rewards.judges.parts import ImagePiece, ShownImage
from rewards.judges.payloads import image_piece
from workers.messages import BlobRef, Message

EVALUATE_KIND, RUBRIC_KIND = "evaluate", "judge_rubric"


class EvaluatePayload(Message):
    """`batch`: the batch's URL; `batch_id`: the id that its manifest must have; `round`: from 0."""

    batch: str
    batch_id: str
    item_id: str
    round: int = Field(ge=0)


class RubricPayload(Message):
    """The task, the document with its pictures in place, and the criterion to judge."""

    question: str
    inputs: tuple[BlobRef, ...] = ()
    parts: tuple[ImagePiece, ...]
    criterion: str = Field(min_length=1)
    judge: str

    @property
    def images(self) -> tuple[ShownImage, ...]:
        """The images that were made."""
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
    """The name of the judge: "rules", or the model."""
    return rubric.model if rubric.provider == "openai" else "rules"
