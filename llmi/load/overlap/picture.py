"""One step of each variant as a picture: trainer, generator and every queue on one time scale.

Invariants: a second is as wide in every panel; a request is a thin bar in a lane of its queue, for as long as
a worker served it; work for the batch that the step trained on is in full colour, work for later ones is
pale; draws off screen (Agg) and touches no global matplotlib state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.pages.curve import FAINT, INK
from llmi.load.overlap.panel import QUEUES, Panel
from llmi.load.overlap.run import VariantRun
from llmi.load.overlap.spans import lanes, running
from policy.ledger.entries import Span

TRAINER, GENERATOR = "trainer", "generator"
# Of the bar, of the word in it, of its edge.
TRAINER_COLOURS = {
    "waiting": ("#ffffff", INK, FAINT),
    "training": (INK, "#ffffff", INK),
    "sending weights": ("#8b93a7", "#ffffff", "#8b93a7"),
}
FREE = "#f1f2f5"
COLOURS = dict(zip(QUEUES, ("#2563eb", "#7c3aed", "#c026d3", "#0891b2", "#d97706", "#dc2626"), strict=True))
COLOURS[GENERATOR] = "#0f766e"
ABOUT = {
    "blocking": "writes the batch, then tools in a few threads, then judges, then trains",
    "blocking_wide": "the same with a thread for every slot",
    "coupled": "verl's asynchronous trainer; a rollout posts its tools when written and awaits its reward",
    "llmi": "every request is posted as soon as it can be",
}
PALE = 0.68  # so far towards white
TRAINER_ROW, GENERATOR_ROW, LEAST_ROW, GAP = 3.0, 6.0, 3.0, 1.2  # heights in lanes


def draw(variants: Sequence[VariantRun], path: Path) -> Path:
    """Write the picture of `variants`, from the top, as a PNG. Raises `ValueError` as `measure` does."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [Panel.of(variant) for variant in variants]
    if not panels:
        raise ValueError("there is no variant to draw")
    heights = [sum(height + GAP for _, height in _rows(panel)) for panel in panels]
    figure = Figure(figsize=(12.5, 1.6 + 0.055 * sum(heights) + 0.7 * len(panels)), dpi=130)
    figure.set_layout_engine("constrained", hspace=0.02, h_pad=0.06, w_pad=0.12)
    FigureCanvasAgg(figure)
    every: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    longest = max(panel.step.seconds for panel in panels)
    most_texts = max(1, *(panel.most_texts for panel in panels))
    for axes, panel in zip(every, panels, strict=True):
        _draw_panel(axes, panel, longest, most_texts)
    every[-1].set_xlabel("seconds since the step began", color=INK, fontsize=10)
    every[-1].set_xlim(0, longest * 1.07)
    samples = panels[0].variant.samples_per_step
    figure.suptitle(
        f"One training step of each variant, {samples} samples a step, all on the same time scale",
        x=0.012, ha="left", color=INK, fontsize=14, fontweight="bold",
    )  # fmt: skip
    _legend(figure)
    figure.savefig(path, format="png")
    return path


def _rows(panel: Panel) -> list[tuple[str, float]]:
    """Each row's name and height, from the top."""
    queues = [(queue, max(LEAST_ROW, float(panel.lanes(queue)))) for queue in panel.queues]
    return [(TRAINER, TRAINER_ROW), (GENERATOR, GENERATOR_ROW), *queues]


def _draw_panel(axes: Any, panel: Panel, longest: float, most_texts: int) -> None:
    from matplotlib.ticker import MaxNLocator

    seconds, top = panel.step.seconds, 0.0
    ticks, labels = [], []
    for name, height in _rows(panel):
        if name == TRAINER:
            _draw_trainer(axes, panel, top, longest)
            label = name
        elif name == GENERATOR:
            _draw_texts(axes, panel, top, most_texts)
            label = f"{name}, up to {panel.most_texts} texts"
        else:
            _draw_queue(axes, panel, name, top)
            label = f"{name}, {panel.variant.slots[name]} slots"
        ticks.append(top + height / 2)
        labels.append(label)
        top += height + GAP
    axes.plot([seconds, seconds], [0, top - GAP], color=INK, linewidth=1.2)
    axes.text(seconds + longest * 0.006, TRAINER_ROW / 2, f"{seconds:.1f} s", va="center", color=INK,
              fontsize=10, fontweight="bold")  # fmt: skip
    axes.set_ylim(top, -GAP / 2)
    axes.set_yticks(ticks, labels)
    for label, (name, _) in zip(axes.get_yticklabels(), _rows(panel), strict=True):
        label.set_color(COLOURS.get(name, INK))
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.tick_params(axis="x", length=0, labelsize=8.5, colors=INK, labelbottom=True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12))
    axes.grid(axis="x", color=FAINT, alpha=0.35, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_title(_title(panel), loc="left", color=INK, fontsize=10)


def _title(panel: Panel) -> str:
    numbers, name = panel.numbers, panel.variant.name
    per_step = numbers.seconds_per_step
    bold = rf"$\bf{{{name.replace('_', chr(92) + '_')}}}$"
    about = f" ({ABOUT[name]})" if name in ABOUT else ""
    measured = (
        f"{per_step.median:.1f} s per step (median of {numbers.repeats} repeats, {per_step.least:.1f}–"
        f"{per_step.most:.1f}), trainer idle {numbers.trainer_idle_ratio.median:.0%}, "
        f"generator idle {numbers.generation_idle_ratio:.0%}; drawn: step {panel.step.number}"
    )
    return f"{bold}{about}\n{measured}"


def _draw_trainer(axes: Any, panel: Panel, top: float, longest: float) -> None:
    for name, spans in panel.trainer.items():
        colour, of_words, edge = TRAINER_COLOURS[name]
        _bars(axes, [(span, top) for span in spans], TRAINER_ROW, colour, edgecolor=edge, linewidth=0.8)
        for began, ended in spans:
            if ended - began > 0.012 * longest * len(name):
                middle = (began + ended) / 2, top + TRAINER_ROW / 2
                axes.text(*middle, name, ha="center", va="center", color=of_words, fontsize=8.5)


def _draw_texts(axes: Any, panel: Panel, top: float, most: int) -> None:
    """How many texts were being written at once."""
    own, other = panel.texts
    window = (0.0, panel.step.seconds)
    _bars(axes, [(window, top)], GENERATOR_ROW, FREE)
    floor = top + GENERATOR_ROW
    for spans, colour in ((own + other, _pale(COLOURS[GENERATOR])), (own, COLOURS[GENERATOR])):
        times, counts = running(spans, window)
        tops = [floor - GENERATOR_ROW * count / most for count in counts]
        axes.fill_between(times, tops, floor, step="post", color=colour, linewidth=0)


def _draw_queue(axes: Any, panel: Panel, queue: str, top: float) -> None:
    own, other = panel.queues[queue]
    _bars(axes, [((0.0, panel.step.seconds), top)], float(panel.variant.slots[queue]), FREE)
    placed = [(span, top + lane + 0.06) for span, lane in zip(own + other, lanes(own + other), strict=True)]
    edge = {"edgecolor": "white", "linewidth": 0.4}
    _bars(axes, placed[: len(own)], 0.88, COLOURS[queue], **edge)
    _bars(axes, placed[len(own) :], 0.88, _pale(COLOURS[queue]), **edge)


def _bars(axes: Any, bars: Iterable[tuple[Span, float]], height: float, colour: str, **edge: Any) -> None:
    """Each bar a span and its top."""
    from matplotlib.collections import PolyCollection

    corners = [
        [(began, top), (ended, top), (ended, top + height), (began, top + height)]
        for (began, ended), top in bars
    ]
    axes.add_collection(PolyCollection(corners, facecolor=colour, **({"linewidth": 0} | edge)), autolim=False)


def _pale(colour: str) -> str:
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + PALE * (255 - part)):02x}" for part in parts)


def _legend(figure: Any) -> None:
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    some = [COLOURS[name] for name in (GENERATOR, "diffusion", "judge_text", "judge_image")]
    entries = {
        f"trainer {name}": Patch(facecolor=colour, edgecolor=edge, linewidth=0.8)
        for name, (colour, _, edge) in TRAINER_COLOURS.items()
    } | {
        "for the batch this step trains on": tuple(Patch(color=colour) for colour in some),
        "for later steps": tuple(Patch(color=_pale(colour)) for colour in some),
        "free slot": Patch(facecolor=FREE, edgecolor=FAINT, linewidth=0.5),
    }
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), frameon=False,
        fontsize=9, labelcolor=INK, handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
    )  # fmt: skip
