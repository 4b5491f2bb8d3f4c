"""What the rollout asks of whoever scores it; `rewards` implements it, so that `policy` need not import
`rewards`.

Invariant: a score is a number with its breakdown, or no number and the failures that mask the sample; never
both.
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
    """A document whose text is complete; `finished` resolves to the same document with every image's
    outcome in. `remake`: of a finished one, makes the image whose blob (by its SHA-256) is lost once more
    and returns the document with it, or None where that cannot be.
    """

    document: Document
    finished: Awaitable[Document]
    client: RequestClient
    remake: Callable[[str], Awaitable[Document | None]] | None = None


class Score(Message):
    """`reward` in [0, 1] with its breakdown, or None with the infrastructure failures that mask the
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
    """Posts the text judge at once, the image judge when `draft.finished` resolves; never raises for a
    failed judge.
    """

    async def score(self, draft: Draft) -> Score: ...
