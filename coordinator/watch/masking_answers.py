"""Answers of providers that masked samples and that waiting does not cure: refusals for unknown reasons,
answers and verdicts that cannot be read. Listed by kind and provider; pure.

No breaker opens for them, so without these lists a run could mask the same kind of document unnoticed.
Invariant: what is kept is bounded, whatever the answers say.
"""

from __future__ import annotations

from collections import Counter, deque

from workers.errors import Cause
from workers.messages import Failure, Outcome

CAUSES = frozenset({Cause.BAD_ANSWER, Cause.VERDICT_UNREADABLE})
RECENT = 200  # outcomes of a kind, of which the share is taken
SHARE, LEAST = 0.05, 5  # more than this share of them, and at least so many, raise an advisory
LISTED = 50  # different answers of a kind
SHOWN = 300  # characters of one


class MaskingAnswers:
    """Takes the outcomes of a run in any order."""

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
        """How often each answer came, by kind, the most frequent first."""
        return {kind: dict(answers.most_common()) for kind, answers in sorted(self._answers.items())}

    @property
    def advisories(self) -> list[str]:
        """A line for each kind of request of which too many masked their samples so."""
        found = []
        for kind, recent in sorted(self._recent.items()):
            refused = sum(recent)
            if refused < LEAST or refused <= SHARE * len(recent):
                continue
            ((answer, times),) = self._answers[kind].most_common(1)
            found.append(
                f"{kind}: {refused} of the last {len(recent)} requests masked their samples by answers that "
                f"waiting does not cure; {times} times {answer}"
            )
        return found
