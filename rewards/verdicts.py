"""What the judges say, as data: integers from 1 to 5 on named axes.

Invariant: a verdict with a missing axis, or with anything but an integer from 1 to 5, is refused as
`Cause.VERDICT_UNREADABLE`; it is never clipped, rounded or used.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, ValidationError

from workers.errors import Cause, InfrastructureFault
from workers.messages import Message

WORST = 1
Axis = Annotated[int, Field(strict=True, ge=1, le=5)]


def unreadable(error: ValidationError, verdict: type[Message], provider: str) -> InfrastructureFault:
    """What is wrong with a judge's answer, in our words only: its own may be long, or hold a key."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    known = first["loc"] and first["loc"][0] in verdict.model_fields
    where = first["loc"][0] if known else "verdict"
    return InfrastructureFault(Cause.VERDICT_UNREADABLE, f"{where}: {first['msg']}", provider=provider)


class Verdict(Message):
    """Base of both verdicts: one `Axis` per field."""

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        return tuple(cls.model_fields)

    @classmethod
    def read(cls, data: object, *, provider: str = "") -> Self:
        """A judge's answer as a verdict. Raises InfrastructureFault(VERDICT_UNREADABLE)."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise unreadable(error, cls, provider) from error

    @classmethod
    def worst(cls) -> Self:
        """The verdict on a document that the judge refuses."""
        return cls.model_validate(dict.fromkeys(cls.axes(), WORST))

    @property
    def scores(self) -> dict[str, int]:
        return {axis: getattr(self, axis) for axis in self.axes()}

    @property
    def mean(self) -> float:
        return sum(self.scores.values()) / len(self.scores)


class TextVerdict(Verdict):
    """The text judge: the prose, and the tags as written (relevant, specific, right source, well placed)."""

    text: Axis
    image_tags: Axis


class ImageVerdict(Verdict):
    """The image judge: the pictures themselves, their use for the task, and how they fit the text around
    them.
    """

    image_quality: Axis
    task_relevance: Axis
    text_image_relevance: Axis


WORST_IMAGES = ImageVerdict(image_quality=1, task_relevance=1, text_image_relevance=1)
BEST_IMAGES = ImageVerdict(image_quality=5, task_relevance=5, text_image_relevance=5)
