"""The judges' verdicts: one integer from 1 to 5 for each axis, and expected scores where the judge has them.

Invariant: a verdict that lacks an axis, or has anything but an integer from 1 to 5 (an expected score: a
number in that range), is refused as `Cause.VERDICT_UNREADABLE`. It is never clipped, rounded or used.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Self, TypeVar, cast

from pydantic import Field, PrivateAttr, TypeAdapter, ValidationError, create_model

from workers.errors import Cause, InfrastructureFault
from workers.messages import Message

WORST, BEST = 1, 5
Grade = Annotated[int, Field(strict=True, ge=WORST, le=BEST)]
_EXPECTED = TypeAdapter(dict[str, Annotated[float, Field(ge=WORST, le=BEST)]])


def unreadable(error: ValidationError, verdict: type[Message], provider: str) -> InfrastructureFault:
    """The fault for a judge's answer that does not validate.

    The detail does not quote the answer, which may be long or hold a key.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    known = first["loc"] and first["loc"][0] in verdict.model_fields
    where = first["loc"][0] if known else "verdict"
    return InfrastructureFault(Cause.VERDICT_UNREADABLE, f"{where}: {first['msg']}", provider=provider)


class Verdict(Message):
    """Base of both verdicts: one `Grade` per field. `with_expected` adds the expected scores."""

    _expected: dict[str, float] = PrivateAttr(default_factory=dict)

    @classmethod
    def axes(cls) -> tuple[str, ...]:
        return tuple(cls.model_fields)

    @classmethod
    def read(cls, data: object, *, provider: str = "") -> Self:
        """Validate a judge's answer. Raises InfrastructureFault(VERDICT_UNREADABLE)."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise unreadable(error, cls, provider) from error

    def with_expected(self, data: object, *, provider: str = "") -> Self:
        """This verdict with expected scores by axis; None: without. Raises as `read`."""
        if data is None:
            return self
        try:
            expected = _EXPECTED.validate_python(data, strict=True)
        except ValidationError as error:
            raise unreadable(error, type(self), provider) from error
        if set(expected) != set(self.axes()):
            detail = "the expected scores have other axes than the verdict"
            raise InfrastructureFault(Cause.VERDICT_UNREADABLE, detail, provider=provider)
        verdict = self.model_copy()
        verdict._expected = expected
        return verdict

    @classmethod
    def worst(cls) -> Self:
        """The verdict on a document that the judge refuses."""
        return cls.model_validate(dict.fromkeys(cls.axes(), WORST))

    @classmethod
    def best(cls) -> Self:
        return cls.model_validate(dict.fromkeys(cls.axes(), BEST))

    @property
    def scores(self) -> dict[str, int]:
        """The integers."""
        return dict(self)

    @property
    def expected(self) -> dict[str, float]:
        """The expected scores; empty where the judge gave none."""
        return dict(self._expected)

    @property
    def grades(self) -> dict[str, float]:
        """The expected scores, else the integers."""
        return {**self.scores, **self._expected}


class TextVerdict(Verdict):
    """The text judge's published axes: the prose, and the tags as written."""

    text: Grade
    image_tags: Grade


class ImageVerdict(Verdict):
    """The image judge's published axes: the pictures, their use for the task, their fit to the text."""

    image_quality: Grade
    task_relevance: Grade
    text_image_relevance: Grade


V = TypeVar("V", bound=Verdict)


@functools.cache
def with_axes(verdict: type[V], added: tuple[str, ...]) -> type[V]:
    """`verdict` with further axes; `verdict` itself for none."""
    if not added:
        return verdict
    fields: dict[str, Any] = dict.fromkeys(added, (Grade, ...))
    return cast(type[V], create_model(verdict.__name__, __base__=verdict, **fields))
