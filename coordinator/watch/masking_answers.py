"""Answers of providers that mask samples and that a retry does not fix, counted by kind. Pure.

These are refusals without a known reason, and answers and verdicts that cannot be parsed. No circuit opens
for them, so without this list a run could mask one kind of document unnoticed.

Invariant: what is kept is bounded, whatever the answers say.
"""

from __future__ import annotations

from collections import Counter, deque

from workers.errors import Cause
from workers.messages import Failure, Outcome

CAUSES = frozenset({Cause.BAD_ANSWER, Cause.VERDICT_UNREADABLE})
RECENT = 200  # outcomes of a kind that the share is computed from
SHARE, LEAST = 0.05, 5  # an advisory needs more than this share of them, and at least this many
LISTED = 50  # most different answers of a kind
SHOWN = 300  # most characters of an answer


class MaskingAnswers:
    """Counts the outcomes of a run, in any order."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[bool]] = {}
        self._answers: dict[str, Counter[str]] = {}

    def add(self, outcome: Outcome) -> None:
        result = outcome.result
        refused = isinstance(result, Failure) and result.cause in CAUSES
        self._recent.setdefault(outcome.kind, deque(maxlen=RECENT)).append(refused)
        if not isinstance(result, Failure) or not refused:
            return
        answers = self._answers.setdefault(outcome.kind, Counter())
        by = result.provider or "the provider"
        words = f"{by} answered {result.cause}: {result.detail}"
        answer = "".join(c if c.isprintable() else " " for c in words)[:SHOWN]
        if answer in answers or len(answers) < LISTED:
            answers[answer] += 1

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Count of each answer, by kind, the most frequent first."""
        return {kind: dict(answers.most_common()) for kind, answers in sorted(self._answers.items())}

    @property
    def advisories(self) -> list[str]:
        """One line for each kind of request that masked too many samples this way."""
        found = []
        for kind, recent in sorted(self._recent.items()):
            refused = sum(recent)
            if refused < LEAST or refused <= SHARE * len(recent):
                continue
            ((answer, times),) = self._answers[kind].most_common(1)
            found.append(
                f"{kind}: {refused} of the last {len(recent)} requests masked their samples by answers that "
                f"a retry does not fix; {times} times {answer}"
            )
        return found
