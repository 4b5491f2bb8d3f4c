"""The evaluations of a run while it trained, from its metrics (`policy.train.evaluation.result`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, JsonValue

from coordinator.watch.metric_lines import metric_lines
from evaluation.pages.curve import EvaluationPoint
from evaluation.pages.run_page import Table
from policy.train.evaluation.result import DOCUMENTS, ERROR, REWARD, VERSION

NORMAL = 1.96  # standard errors of the 95 % interval


class Evaluated(BaseModel):
    """One evaluation.

    `version`: of the weights (number of updates) when it was submitted; `oldest`, `newest`: of those that
    wrote its documents, None without any; `lag`: steps until it had ended. `reward`: mean over its prompts,
    None without a scored document; `interval`: half the width of its 95 % interval, None for one prompt.
    `documents`: scored ones; `masked`: by infrastructure; `failed`: with an error; `unfinished`: when the run
    ended. `skipped`: evaluations so far that were due while another was open.
    """

    version: int
    oldest: int | None
    newest: int | None
    lag: int
    reward: float | None
    interval: float | None
    documents: int
    masked: int
    failed: int
    unfinished: int
    skipped: int

    @property
    def words(self) -> str:
        """One line of text."""
        lag = f"{self.lag} step{'' if self.lag == 1 else 's'} later" if self.lag else "at once"
        return f"{self.reward_words} of version {self.version}, {self.documents} documents, {lag}"

    @property
    def reward_words(self) -> str:
        if self.reward is None:
            return "no reward"
        return f"{self.reward:.3f}" if self.interval is None else f"{self.reward:.3f} ± {self.interval:.3f}"


def evaluation_of(row: Mapping[str, JsonValue]) -> Evaluated | None:
    """The evaluation with metrics in a line of the file; None without one."""
    if row.get(VERSION) is None:
        return None
    error = row.get(ERROR)
    return Evaluated.model_validate(
        {
            "version": row[VERSION],
            "oldest": row.get("val/version/oldest"),
            "newest": row.get("val/version/newest"),
            "lag": row["val/lag"],
            "reward": row.get(REWARD),
            "interval": NORMAL * error if isinstance(error, int | float) else None,
            "documents": row[DOCUMENTS],
            **{name: row[f"val/{name}"] for name in ("masked", "failed", "unfinished", "skipped")},
        }
    )


def read(path: Path) -> list[Evaluated]:
    """All evaluations in a metrics file, in order."""
    return [found for row in metric_lines(path) if (found := evaluation_of(row))]


def points(found: list[Evaluated]) -> list[EvaluationPoint]:
    """Those with a reward, for the curve."""
    return [
        EvaluationPoint(one.version, one.reward, one.interval or 0.0)
        for one in found
        if one.reward is not None
    ]


def tables(found: list[Evaluated]) -> list[Table]:
    """One table; none without an evaluation."""
    if not found:
        return []
    head = ["version", "reward, 95 %", "documents", "masked or failed", "written by versions", "steps later"]
    rows = [
        [
            str(one.version),
            one.reward_words,
            str(one.documents),
            str(one.masked + one.failed + one.unfinished),
            "-" if one.oldest is None else f"{one.oldest}–{one.newest}",
            str(one.lag),
        ]
        for one in found
    ]
    skipped = found[-1].skipped
    title = f"Evaluations ({skipped} skipped)" if skipped else "Evaluations"
    return [Table(title, head, rows)]
