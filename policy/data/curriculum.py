"""Choose the next prompt: those with a signal more often than others. Pure, and seeded.

Invariants:
- every prompt has at least the probability `floor` / prompts, except for those to avoid;
- the choice depends on nothing but the results, the seed and the number of the draw.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from policy.data.prompt_results import PromptResults


class Curriculum:
    """Chooses prompts by the variance of their rewards.

    `floor`: the share of draws that is uniform over all prompts.
    """

    def __init__(self, results: PromptResults, floor: float, seed: int):
        self._results = results
        self._floor = floor
        self._seed = seed

    def probabilities(self) -> np.ndarray:
        """The probability of each prompt."""
        variance = self._results.variance()
        uniform = np.full(len(variance), 1 / len(variance))
        total = variance.sum()
        return self._floor * uniform + (1 - self._floor) * (variance / total if total > 0 else uniform)

    def choose(self, draw: int, avoid: Collection[int] = ()) -> int:
        """The prompt of draw number `draw`; none of `avoid`, unless those are all prompts."""
        chances = self.probabilities()
        if len(set(avoid)) < len(chances):
            chances[list(avoid)] = 0
        random = np.random.default_rng((self._seed, draw))
        return int(random.choice(len(chances), p=chances / chances.sum()))

    def effective(self) -> float:
        """The number of prompts that a uniform choice with as many repetitions would have."""
        return float(1 / (self.probabilities() ** 2).sum())
