"""What the generator returns, and what a rollout has become so far.

Invariants: every token id has one log-probability; token ids are never encoded from text again.
"""

from __future__ import annotations

import array
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from policy.document import Document, Part
from policy.ledger.entries import Span
from policy.resume.completions import Completion, CompletionSegment
from policy.resume.plan import effective_versions
from policy.scoring import Score


@dataclass(frozen=True)
class Segment:
    """What one call of the generator wrote: it ended at `</imgen>`, at the model's end token or at its limit.

    `log_probs` has one entry per token id; `version` is the trainer step of the oldest and newest weights
    used.
    """

    token_ids: list[int]
    log_probs: list[float]
    version: tuple[int, int] | None = None


# (all token ids so far, how many more may be written, number of the segment) -> what was written
Generate = Callable[[list[int], int, int], Awaitable[Segment]]


def replay(text: Completion, cut: Sequence[int]) -> Generate:
    """A generator that brings what was written before. `cut` as in `policy.resume.plan.Continued`."""

    async def generate(_ids: list[int], _left: int, number: int) -> Segment:
        return _segment(text.pieces[number], cut)

    return generate


def _segment(piece: CompletionSegment, cut: Sequence[int]) -> Segment:
    version = None if piece.version is None else effective_versions(piece.version, cut)
    return Segment(piece.ids(), piece.probs(), version)


@dataclass
class RolloutResult:
    """A scored rollout. `reward` is None when infrastructure's failures mask it."""

    prompt_ids: list[int]
    versions: tuple[int, int] | None = None
    segments: int = 0
    spans: list[Span] = field(default_factory=list)  # when the generator wrote each
    parts: list[Part] = field(default_factory=list)
    truncated: bool = False
    generated_s: float = 0.0
    scored_s: float = 0.0
    document: Document | None = None
    score: Score | None = None
    # One list, made anew by each segment: the generator holds on to the one it was given while it writes, and
    # a list that grows in place takes an eighth more than it needs.
    _context: list[int] = field(init=False, repr=False)
    # Doubles: 8 bytes for each token, where a list of floats takes 32 and time of the garbage collector.
    _log_probs: array.array[float] = field(default_factory=lambda: array.array("d"), init=False, repr=False)

    _segments: list[tuple[int, tuple[int, int] | None]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._context = list(self.prompt_ids)

    @property
    def context(self) -> list[int]:
        """The prompt and what was written so far. A segment makes another list, and leaves this one be."""
        return self._context

    @property
    def tokens(self) -> int:
        """How many were written."""
        return len(self._log_probs)

    @property
    def token_ids(self) -> list[int]:
        """What was written."""
        return self._context[len(self.prompt_ids) :]

    @property
    def log_probs(self) -> list[float]:
        """One for each of `token_ids`."""
        return self._log_probs.tolist()

    @property
    def reward(self) -> float | None:
        return self.score.reward if self.score else None

    @property
    def text(self) -> Completion:
        """For a resumed run; of a text that is complete."""
        pieces, at, ids = [], 0, self.token_ids
        for length, version in self._segments:
            end = at + length
            pieces.append(CompletionSegment.of(ids[at:end], self._log_probs[at:end], version))
            at = end
        return Completion(time=time.time(), pieces=tuple(pieces))

    def extend(self, segment: Segment) -> None:
        if len(segment.token_ids) != len(segment.log_probs):
            raise ValueError(
                f"{len(segment.token_ids)} tokens came with {len(segment.log_probs)} log-probabilities"
            )
        self._segments.append((len(segment.token_ids), segment.version))
        self._context = self._context + segment.token_ids
        self._log_probs.extend(segment.log_probs)
        self.segments += 1
        if segment.version is not None:
            oldest, newest = self.versions or segment.version
            self.versions = min(oldest, segment.version[0]), max(newest, segment.version[1])


def restored(
    prompt_ids: list[int], text: Completion, document: Document, score: Score, cut: Sequence[int]
) -> RolloutResult:
    """A rollout that was scored before, as `Rollout.run` would have returned it."""
    written = RolloutResult(prompt_ids=prompt_ids)
    for piece in text.pieces:
        written.extend(_segment(piece, cut))
    written.document, written.score, written.truncated = document, score, document.truncated
    return written
