"""The loss of each step and its trend, as a PNG.

Invariant: draws off screen (Agg) and touches no global matplotlib state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluation.pages.curve import ACCENT, FAINT, INK, smooth

PICTURE = "loss.png"


def draw(losses: Mapping[int, float], path: Path, title: str) -> None:
    """Write the curve of losses by step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, values = list(losses), list(losses.values())
    axes.plot(steps, values, "o-", color=ACCENT, alpha=0.3, linewidth=1, markersize=3, label="step")
    axes.plot(steps, smooth(values), color=ACCENT, linewidth=2.4, label="trend")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("step", color=INK, fontsize=9)
    axes.set_ylabel("loss per token", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.8)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right", labelcolor=INK)
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    figure.savefig(path, format="png")
