"""The result of an evaluation, as metrics of a step. Pure, without I/O.

Invariant: a document without a reward is counted and is in no mean.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policy.train.means import means

VERSION, REWARD, ERROR, DOCUMENTS = "val/version", "val/reward/mean", "val/reward/stderr", "val/documents"
UNFINISHED, SKIPPED = "val/unfinished", "val/skipped"


@dataclass(frozen=True)
class Scored:
    """A document with a reward. `info`: its numbers (`policy.rollout.reward_info`). `oldest`, `newest`:
    versions of the weights that wrote it.
    """

    prompt: str
    info: Mapping[str, float]
    oldest: int
    newest: int


@dataclass
class Result:
    """An evaluation of `version`, filled while its documents end.

    `masked`: documents that infrastructure masked. `failed`: those that raised. `unfinished`: those that had
    not ended, or not been submitted, when the run ended.
    """

    version: int
    scored: list[Scored] = field(default_factory=list)
    masked: int = 0
    failed: int = 0
    unfinished: int = 0

    def metrics(self, step: int, skipped: int) -> dict[str, float]:
        """Metrics of `step`, in which the evaluation ended. `skipped`: evaluations that were, so far.

        - `val/version`: the version when it was submitted; `val/version/oldest`, `/newest`: of the weights
          that wrote its documents; `val/lag`: steps since;
        - `val/reward/mean`, `/stderr`: mean over the prompts of the mean of each, and its standard error;
        - `val/documents`, `val/masked`, `val/failed`, `val/unfinished`: numbers of documents;
        - `val/NAME`: the mean of each number of the documents.
        """
        found: dict[str, float] = {
            VERSION: self.version,
            "val/lag": step - self.version,
            DOCUMENTS: len(self.scored),
            "val/masked": self.masked,
            "val/failed": self.failed,
            UNFINISHED: self.unfinished,
            SKIPPED: skipped,
        }
        if self.scored:
            found["val/version/oldest"] = min(one.oldest for one in self.scored)
            found["val/version/newest"] = max(one.newest for one in self.scored)
            rewards = self._rewards()
            found[REWARD] = statistics.fmean(rewards)
            if len(rewards) > 1:
                found[ERROR] = statistics.stdev(rewards) / math.sqrt(len(rewards))
            found |= {f"val/{name}": mean for name, mean in means([one.info for one in self.scored]).items()}
        return found

    def _rewards(self) -> Sequence[float]:
        """The mean reward of each prompt: its samples (`val_kwargs.n`) are not independent."""
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for one in self.scored:
            by_prompt[one.prompt].append(one.info["reward"])
        return [statistics.fmean(rewards) for rewards in by_prompt.values()]
