"""The picture of `llmi bench staleness`: averaged rewards by samples and by time, one line for each run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.pages.curve import FAINT, INK
from llmi.load.staleness.curve import Curve
from llmi.load.staleness.settings import ArmName, StalenessSettings

COLOURS: dict[ArmName, str] = {
    "synchronous": "#8b93a7",
    "coupled": "#d97706",
    "llmi": "#2563eb",
    "llmi_uncorrected": "#dc2626",
    "llmi_stale": "#7c3aed",
}


def draw(settings: StalenessSettings, curves: Mapping[ArmName, Mapping[int, Curve]], path: Path) -> Path:
    """Write it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    by_samples, by_time = figure.subplots(1, 2, sharey=True)
    for name, runs in curves.items():
        for number, curve in enumerate(runs.values()):
            label = name if number == 0 else None
            steps = range(curve.length, len(curve.points) + 1)
            rewards = curve.rewards
            samples = [curve.samples(step) for step in steps]
            seconds = [curve.points[step - 1].seconds for step in steps]
            for axes, along in ((by_samples, samples), (by_time, seconds)):
                axes.plot(along, rewards, color=COLOURS[name], linewidth=1.4, label=label)
                axes.plot(along[-1:], rewards[-1:], ".", color=COLOURS[name], markersize=7)
    _finish(by_samples, settings, "samples trained on", "Reward by samples")
    _finish(by_time, settings, "seconds since the first step began", "Reward by time")
    by_samples.set_ylabel(f"mean reward of {settings.averaged} steps", color=INK, fontsize=9)
    by_time.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right")
    figure.savefig(path, format="png")
    return path


def _finish(axes: Any, settings: StalenessSettings, along: str, title: str) -> None:
    axes.axhline(settings.reward, color=FAINT, linewidth=1, linestyle="--")
    axes.set_xlim(left=0)
    axes.set_xlabel(along, color=INK, fontsize=9)
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.grid(color=FAINT, alpha=0.3, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
