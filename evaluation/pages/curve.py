"""The reward curve as a PNG: the mean reward of each step, its trend, evaluations of the test files, and how
many samples were masked.

Invariant: draws off screen (Agg) and touches no global matplotlib state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INK, FAINT, ACCENT, WARN = "#1f2430", "#9aa1af", "#0f766e", "#c2410c"


@dataclass(frozen=True)
class Point:
    """One training step, from 1. `reward`: mean in [0, 1] over its valid samples, None if there are none;
    `masked` (by infrastructure), `dropped` (with their groups): numbers of samples.
    """

    step: int
    reward: float | None
    masked: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class EvaluationPoint:
    """An evaluation of the test files. `step`: updates of the weights, 0 for the initial model. `reward`: the
    mean; `interval`: half the width of its interval.
    """

    step: int
    reward: float
    interval: float


def smooth(values: Sequence[float], alpha: float = 0.25) -> list[float]:
    """An exponential moving average, corrected for its start: the first mean is the first value."""
    total, weight, result = 0.0, 0.0, []
    for value in values:
        total = (1 - alpha) * total + alpha * value
        weight = (1 - alpha) * weight + alpha
        result.append(total / weight)
    return result


def draw(
    points: Sequence[Point], path: Path, title: str = "", evaluated: Sequence[EvaluationPoint] = ()
) -> Path:
    """Write the curve to `path`. Raises ValueError when there is no step to draw."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not points:
        raise ValueError("there is no step to draw")
    figure = Figure(figsize=(9, 3.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [point.step for point in points]
    drawn = [(point.step, point.reward) for point in points if point.reward is not None]
    trained, rewards = [step for step, _ in drawn], [reward for _, reward in drawn]
    axes.plot(
        trained, rewards, "o-", color=ACCENT, alpha=0.3, linewidth=1, markersize=3, label="mean of the step"
    )
    axes.plot(trained, smooth(rewards), color=ACCENT, linewidth=2.4, label="trend")
    if evaluated:
        axes.errorbar(
            [point.step for point in evaluated],
            [point.reward for point in evaluated],
            yerr=[point.interval for point in evaluated],
            fmt="s--", color=INK, linewidth=1, markersize=4, capsize=3, label="test files, 95 % interval",
        )  # fmt: skip
        rewards += [point.reward + side * point.interval for point in evaluated for side in (-1, 1)]
    masked, dropped = [point.masked for point in points], [point.dropped for point in points]
    if any(masked) or any(dropped):
        counts = axes.twinx()
        counts.bar(steps, masked, width=0.8, color=WARN, alpha=0.45, label="masked by infrastructure")
        if any(dropped):
            counts.bar(
                steps,
                dropped,
                bottom=masked,
                width=0.8,
                color=FAINT,
                alpha=0.45,
                label="dropped with its group",
            )
        counts.set_ylim(0, 4 * max(map(sum, zip(masked, dropped, strict=True))))
        counts.set_ylabel("samples not trained on", color=WARN, fontsize=9)
        counts.legend(frameon=False, fontsize=8, loc="upper right", labelcolor=INK)
        counts.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        counts.tick_params(colors=WARN, labelsize=8, length=0)
        counts.spines[["top", "left", "right", "bottom"]].set_visible(False)
    low, high = min(rewards, default=0.0), max(rewards, default=1.0)
    margin = max(0.05, 0.15 * (high - low))
    axes.set_ylim(max(0.0, low - margin), min(1.0, high + margin))
    every = [*steps, *(point.step for point in evaluated)]
    axes.set_xlim(min(every) - 0.6, max(every) + 0.6)
    axes.set_xlabel("step", color=INK, fontsize=9)
    axes.set_ylabel("reward", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.8)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.legend(frameon=False, fontsize=8, loc="upper left", labelcolor=INK)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    figure.savefig(path, format="png")
    return path
