"""The interface of a scorer; `rewards` implements it, so that `policy` does not import `rewards`.

Invariant: a score is either a number with its breakdown, or the failures that mask the sample.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field, JsonValue, model_validator

from policy.document import Document
from workers.client.handle import RequestClient
from workers.messages import Failure, Message


@dataclass(frozen=True)
class Draft:
    """A document with a complete text.

    `finished` resolves to the same document with the outcome of every image. `remake`: regenerates an
    image of a finished document, given the SHA-256 of its lost blob, and returns the new document; None if
    that is impossible.
    """

    document: Document
    finished: Awaitable[Document]
    client: RequestClient
    remake: Callable[[str], Awaitable[Document | None]] | None = None


class Score(Message):
    """`reward`: in [0, 1], with its breakdown; or None, with the infrastructure failures that mask the
    sample.
    """

    reward: float | None
    breakdown: dict[str, JsonValue] = Field(default_factory=dict)
    masked_by: tuple[Failure, ...] = ()

    @model_validator(mode="after")
    def _one_of(self) -> Score:
        if (self.reward is None) == (not self.masked_by):
            raise ValueError("a score has either a reward or the failures that mask it")
        return self


class Scorer(Protocol):
    """Posts the text judge at once, and the image judge when `draft.finished` resolves.

    A failed judge is part of the score, never an exception.
    """

    async def score(self, draft: Draft) -> Score: ...
