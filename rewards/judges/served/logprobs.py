"""Expected scores of a verdict, from the log-probabilities of the tokens that hold its digits.

An integer score says nothing about how sure the judge was. Its expected score is the mean of the scale,
weighted with the judge's probabilities at the place of the digit: two documents with a 4 differ when one was
nearly a 5. vLLM gives these probabilities before the temperature and after the JSON schema has excluded other
tokens (`logprobs_mode` raw_logprobs). Other servers may list tokens that no verdict can hold; those are left
out and the rest is renormalised.

Invariants: pure; an expected score is within the scale, in steps of `STEP`, and is the mean over the scores
that an answer has probabilities for; where it has them for no score of an axis, there is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

REQUESTED: Mapping[str, Any] = {"logprobs": True, "top_logprobs": 20}  # the most that vLLM and OpenAI allow
# The numerics of a server change a little with the batch. Without steps, documents of equal quality would get
# different rewards, and GRPO divides a group's rewards by their deviation, however small.
STEP = 0.05


class _Alternative(BaseModel):
    token: str
    logprob: float | None = None

    @property
    def probability(self) -> float:
        """0 where the server gives none."""
        given = self.logprob is not None and not math.isnan(self.logprob)
        return math.exp(min(self.logprob or 0.0, 0.0)) if given else 0.0


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


_TOKENS = TypeAdapter(list[_Token])


def expected(
    answer: Mapping[str, Any], content: str, verdict: Mapping[str, int], scale: Collection[int]
) -> dict[str, float]:
    """The expected score of each field of `verdict`; empty when one has none.

    answer: of the chat endpoint. content: its text, one JSON object with the fields of `verdict`. scale: the
    scores that a field may have, each of one digit.
    """
    tokens = _tokens(answer)
    places = [(n, at) for n, token in enumerate(tokens) for at in range(len(_bare(token.token)))]
    body = _bare(content)
    start = "".join(_bare(token.token) for token in tokens).rfind(body)
    found = {}
    for name, score in verdict.items():
        field = f'"{name}":'
        if start < 0 or body.count(field) != 1 or not body.partition(field)[2].startswith(str(score)):
            return {}
        place, offset = places[start + body.index(field) + len(field)]
        mean = _mean(tokens[place], offset, scale)
        if mean is None:
            return {}
        found[name] = round(round(mean / STEP) * STEP, 2)
    return found


def _tokens(answer: Mapping[str, Any]) -> Sequence[_Token]:
    try:
        return _TOKENS.validate_python(answer["choices"][0]["logprobs"]["content"])
    except (KeyError, IndexError, TypeError, ValidationError):
        return []


def _mean(token: _Token, offset: int, scale: Collection[int]) -> float | None:
    """The mean of the scale at the digit `offset` characters into the token; None without probabilities."""
    listed = [one.token for one in token.top_logprobs]
    alternatives = [*token.top_logprobs, *([] if token.token in listed else [token])]
    before = _bare(token.token)[:offset]
    weights = {str(score): 0.0 for score in scale}
    for one in alternatives:
        words = _bare(one.token)
        digit, after = words[offset : offset + 1], words[offset + 1 : offset + 2]
        if words.startswith(before) and digit in weights and after in ("", ",", "}"):
            weights[digit] += one.probability
    total = sum(weights.values())
    return sum(int(digit) * weight for digit, weight in weights.items()) / total if total else None


def _bare(text: str) -> str:
    """Without white space, which servers keep or drop as they like."""
    return "".join(text.split())
