"""The picture of a soak: memory and open files of every role over its time."""

from __future__ import annotations

from pathlib import Path

from llmi.load.soak.bench import Soak
from llmi.load.soak.memory import MIB


def draw(soak: Soak, path: Path) -> None:
    """Write it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    memory, files = figure.subplots(2, 1, sharex=True)
    for one in soak.series:
        own = [reading for reading in soak.readings if reading.role == one.role]
        minutes = [reading.time_s / 60 for reading in own]
        label = f"{one.role} ({one.processes})" if one.processes > 1 else one.role
        memory.plot(minutes, [reading.rss / MIB for reading in own], label=label, linewidth=1.2)
        files.plot(minutes, [reading.files for reading in own], linewidth=1.2)
    memory.set_ylabel("resident memory, MiB")
    files.set_ylabel("open files")
    files.set_xlabel("minutes")
    for axes in (memory, files):
        axes.set_ylim(bottom=0)
        axes.axvspan(0, soak.seconds / 180, color="0.93", zorder=0)  # the third that is not judged
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
    rate = soak.requests / soak.seconds
    memory.set_title(
        f"{soak.requests:,} requests in {soak.seconds / 60:.0f} minutes ({rate:.0f}/s): the largest process "
        "of each role",
        fontsize=10,
        loc="left",
    )
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=6)
    figure.savefig(path, dpi=120)
