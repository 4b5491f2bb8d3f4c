"""What the groups of a run have shown about their prompts: variance and mean of the rewards. Pure.

GRPO learns from the differences of rewards within a group. The variance of a prompt is that of the rewards in
its groups, pooled over the groups by their degrees of freedom; its difficulty is 1 minus their mean.

Invariants:
- only samples with a reward count: one that infrastructure masked says nothing about its prompt;
- results lose half of their weight in `half_life` steps, because the policy changes;
- `PRIOR` degrees of freedom at the variance of all prompts are added to each prompt. So a group of two says
  little, and a prompt without recent groups counts as an average one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workers.errors import ConfigError

SAME = 1e-6  # spread of equal rewards after rounding to float32; GRPO adds as much to the deviation
PRIOR = 1.0
STATE = ("squares", "freedom", "rewards", "samples", "groups")


def all_same(rewards: Sequence[float]) -> bool:
    """Whether the rewards are equal, so that their group has no signal."""
    return max(rewards) - min(rewards) <= SAME


class PromptResults:
    """Results by prompt. `prompts`: how many there are. `half_life`: in steps."""

    def __init__(self, prompts: int, half_life: float):
        self._kept = 0.5 ** (1 / half_life)
        self._squares = np.zeros(prompts)  # squared deviations from the mean of their group
        self._freedom = np.zeros(prompts)  # degrees of freedom: samples less groups
        self._rewards = np.zeros(prompts)
        self._samples = np.zeros(prompts)
        self._groups: np.ndarray = np.zeros(prompts, dtype=np.int64)
        self._compared = self._with_signal = 0  # groups of this step with at least two samples

    def start_step(self) -> None:
        """Age the results by a step."""
        for results in (self._squares, self._freedom, self._rewards, self._samples):
            results *= self._kept
        self._compared = self._with_signal = 0

    def record(self, prompt: int, rewards: Sequence[float]) -> None:
        """Add a group: the rewards of its valid samples."""
        if not rewards:
            return
        found = np.sort(np.asarray(rewards, dtype=np.float64))  # sorted, because samples end in any order
        self._squares[prompt] += ((found - found.mean()) ** 2).sum()
        self._freedom[prompt] += len(found) - 1
        self._rewards[prompt] += found.sum()
        self._samples[prompt] += len(found)
        self._groups[prompt] += 1
        if len(found) > 1:
            self._compared += 1
            self._with_signal += not all_same(rewards)

    def variance(self) -> np.ndarray:
        """The estimated variance of the rewards in a group, by prompt."""
        freedom = self._freedom.sum()
        common = self._squares.sum() / freedom if freedom > 0 else 0.0
        return (self._squares + PRIOR * common) / (self._freedom + PRIOR)

    def metrics(self) -> dict[str, float]:
        """The share of this step's groups with a signal, and how all prompts stand."""
        metrics: dict[str, float] = {"prompts/untried": int((self._groups == 0).sum())}
        if self._compared:
            metrics["prompts/signal"] = self._with_signal / self._compared
        if (known := self._samples > 0).any():
            metrics["prompts/difficulty"] = 1 - float((self._rewards[known] / self._samples[known]).mean())
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}").copy() for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ConfigError` for a state of more or fewer prompts."""
        before, now = len(state["groups"]), len(self._groups)
        if before != now:
            raise ConfigError(
                f"data.train: has {now} prompts, and the checkpoint was made with {before}; "
                "use the same files, or start another run"
            )
        for name in STATE:
            getattr(self, f"_{name}")[:] = state[name]
