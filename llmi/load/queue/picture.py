"""The picture of `llmi bench queue`: the contestants, and what changes with the backlog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmi.load.queue.contestants import OURS
from llmi.load.queue.numbers import Numbers, command_ratios

OWN, OTHER = "#2563eb", "#8b93a7"
NAMED = 6  # commands
LINES = {"per_s": ("requests per second", "#2563eb"), "p99": ("p99 beside the backlog", "#d97706")}


def draw(numbers: Numbers, path: Path) -> None:
    """Write it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7 if numbers.backlogs else 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    rows: Any = figure.subplots(2 if numbers.backlogs else 1, 2, squeeze=False)
    options = numbers.options
    _bars(rows[0][0], numbers, "per_s", f"requests per second, {options.in_flight} in flight")
    _bars(rows[0][1], numbers, "p50", "ms from post to outcome of single requests (p50)")
    if numbers.backlogs:
        _ratios(rows[1][0], numbers)
        _commands(rows[1][1], numbers)
    for axes in rows.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=120)


def _bars(axes: Any, numbers: Numbers, field: str, title: str) -> None:
    """The median of each contestant, with a dot for each round."""
    names = list(numbers.contestants)
    rounds = numbers.contestants
    colours = [OWN if name == OURS.name else OTHER for name in names]
    axes.barh(names, [rounds[name].median(field) for name in names], color=colours, height=0.6)
    for name in names:
        values = [getattr(one, field) for one in rounds[name].rounds]
        axes.plot(values, [name] * len(values), ".", color="black", markersize=4)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9, loc="left")


def _ratios(axes: Any, numbers: Numbers) -> None:
    """Throughput and p99 of each backlog, relative to the smallest."""
    waiting = [one.waiting for one in numbers.backlogs]
    for field, (label, colour) in LINES.items():
        values = [one.rounds.median(field) for one in numbers.backlogs]
        axes.plot(waiting, [value / values[0] for value in values], "o-", label=label, color=colour)
    _by_backlog(axes, waiting, "throughput and latency, relative to the smallest backlog")
    axes.legend(fontsize=7, frameon=False)


def _commands(axes: Any, numbers: Numbers) -> None:
    """Time per call of each Redis command, relative to the smallest backlog; the slowest ones are named."""
    ratios = command_ratios(numbers.backlogs[0], numbers.backlogs[-1])
    for position, name in enumerate(sorted(ratios, key=lambda name: -ratios[name])):
        known = [(one.waiting, one.commands()[name]) for one in numbers.backlogs if name in one.commands()]
        times = [time.us_per_call / known[0][1].us_per_call for _, time in known]
        look = {"label": name.upper()} if position < NAMED else {"color": "0.8", "zorder": 1}
        axes.plot([waiting for waiting, _ in known], times, "o-", linewidth=1, **look)
    waiting = [one.waiting for one in numbers.backlogs]
    _by_backlog(axes, waiting, "time per call of each Redis command, relative to the smallest backlog")
    if axes.lines:
        axes.legend(fontsize=7, frameon=False)


def _by_backlog(axes: Any, waiting: list[int], title: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(waiting, [f"{one:,}" for one in waiting])
    axes.minorticks_off()
    axes.set_xlabel("requests waiting", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.9")
    axes.set_title(title, fontsize=9, loc="left")
