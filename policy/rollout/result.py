"""The segments that the generator returns, and the result of a rollout.

Invariants: every generated token id has one log-probability; token ids never come from re-encoding text.
"""

from __future__ import annotations

import array
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from policy.document import Document, Part
from policy.ledger.entries import Span
from policy.resume.completions import Completion, CompletionSegment
from policy.resume.plan import effective_versions
from policy.scoring import Score


@dataclass(frozen=True)
class Segment:
    """The output of one call of the generator, which ends at `</imgen>`, the model's end token or the limit.

    `log_probs`: one per token id. `version`: trainer steps of the oldest and newest weights used. `last`: it
    is the last of a saved text. `out_of_time`: that text was cut because its time had run out.
    """

    token_ids: list[int]
    log_probs: list[float]
    version: tuple[int, int] | None = None
    last: bool = False
    out_of_time: bool = False


# (all token ids so far, how many more may be generated, number of the segment) -> the segment
Generate = Callable[[list[int], int, int], Awaitable[Segment]]


def replay(text: Completion, cut: Sequence[int]) -> Generate:
    """A generator that returns the saved segments of a completion.

    `cut`: see `policy.resume.state.ResumeState`.
    """

    async def generate(_ids: list[int], _left: int, number: int) -> Segment:
        last = number == len(text.pieces) - 1
        segment = _segment(text.pieces[number], cut)
        return replace(segment, last=last, out_of_time=last and text.out_of_time)

    return generate


def _segment(piece: CompletionSegment, cut: Sequence[int]) -> Segment:
    version = None if piece.version is None else effective_versions(piece.version, cut)
    return Segment(piece.ids(), piece.probs(), version)


@dataclass
class RolloutResult:
    """The result of a rollout, filled while it runs.

    `versions`: trainer steps of the oldest and newest weights that wrote it. `segments`: number of calls of
    the generator; `spans`: the times of each. `truncated`: the token limit ended it; `out_of_time`: its time
    ended it; `stall`: why that masks it (`policy.rollout.stalls`). `generated_s`, `scored_s`: seconds.
    `reward` is None when infrastructure failures mask it.
    """

    prompt_ids: list[int]
    versions: tuple[int, int] | None = None
    segments: int = 0
    spans: list[Span] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    truncated: bool = False
    out_of_time: bool = False
    stall: str | None = None
    generated_s: float = 0.0
    scored_s: float = 0.0
    document: Document | None = None
    score: Score | None = None
    # Replaced by each segment: the generator keeps the list it was given, and a list that grows in place
    # takes an eighth more memory than it needs.
    _context: list[int] = field(init=False, repr=False)
    # Doubles: 8 bytes per token, where a list of floats takes 32 and time of the garbage collector.
    _log_probs: array.array[float] = field(default_factory=lambda: array.array("d"), init=False, repr=False)

    _segments: list[tuple[int, tuple[int, int] | None]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._context = list(self.prompt_ids)

    @property
    def context(self) -> list[int]:
        """The ids of the prompt and of the text so far. `extend` does not change this list."""
        return self._context

    @property
    def tokens(self) -> int:
        """Number of generated tokens."""
        return len(self._log_probs)

    @property
    def segment_times(self) -> list[tuple[float, int]]:
        """Seconds and tokens of each segment."""
        pairs = zip(self.spans, self._segments, strict=True)
        return [(ended - began, tokens) for (began, ended), (tokens, _) in pairs]

    @property
    def token_ids(self) -> list[int]:
        """The generated token ids."""
        return self._context[len(self.prompt_ids) :]

    @property
    def log_probs(self) -> list[float]:
        """One per generated token."""
        return self._log_probs.tolist()

    @property
    def reward(self) -> float | None:
        return self.score.reward if self.score else None

    @property
    def completion(self) -> Completion:
        """The complete text, to be saved for a resumed run."""
        pieces, at, ids = [], 0, self.token_ids
        for length, version in self._segments:
            end = at + length
            pieces.append(CompletionSegment.of(ids[at:end], self._log_probs[at:end], version))
            at = end
        return Completion(time=time.time(), pieces=tuple(pieces), out_of_time=self.out_of_time)

    def extend(self, segment: Segment) -> None:
        """Append a segment. Raises `ValueError` if its log-probabilities do not match its tokens."""
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
    """The result of a rollout that was scored before a resume, as `Rollout.run` would have returned it."""
    result = RolloutResult(prompt_ids=prompt_ids)
    for piece in text.pieces:
        result.extend(_segment(piece, cut))
    result.document, result.score = document, score
    result.truncated, result.out_of_time = document.truncated, document.out_of_time
    return result
