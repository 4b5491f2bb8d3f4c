"""The live view of a run on stderr: a small panel on a terminal, plain lines elsewhere.

Invariant: the view never stops the run; a queue that does not answer shows no depth.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.console.stages import duration
from coordinator.console.terminal import can_redraw, print_line
from coordinator.host.processes import MemoryWatch
from coordinator.scale.fleet import PoolState
from coordinator.watch.masks import counts_in_words
from coordinator.watch.progress import Progress
from coordinator.watch.report import GIB
from coordinator.watch.status import in_words, waiting
from policy.ledger.masked import DROPPED

logger = logging.getLogger(__name__)
BARS = "▁▂▃▄▅▆▇█"
LINE_EVERY_S = 30.0
TRAINING = "training"
LOADING = "verl and vLLM load the model"
FIRST = "generating and scoring the first rollouts"


def sparkline(values: list[float], width: int = 40) -> str:
    """The last `width` values as block characters between their lowest and highest."""
    values = values[-width:]
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def worker_counts(states: Mapping[str, PoolState]) -> str:
    """`POOL READY/WANTED (LOW–HIGH)` of every pool; the bounds only where they differ."""
    shown = []
    for name, state in states.items():
        first, *others = name.split("-")
        short = f"{first}…" if len(others) > 1 else name
        bounds = f" ({state.low}–{state.high})" if state.low < state.high else ""
        shown.append(f"{short} {state.ready}/{state.wanted}{bounds}")
    return " · ".join(shown)


def masked_in_words(progress: Progress) -> str:
    """Describe masked samples by cause, and those dropped with their groups."""
    causes = {cause: count for cause, count in progress.masked.most_common() if cause != DROPPED}
    return counts_in_words(progress.masked_rollouts, causes, progress.masked[DROPPED])


class LiveView:
    """A context manager that shows the run's progress at each call of `show`.

    `total`: number of steps, None when the data decides; `where`: describes the request of an id.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        total: int | None,
        progress: Progress,
        memory: MemoryWatch,
        depths: Callable[[], Mapping[str, int]],
        workers: Callable[[], Mapping[str, PoolState]],
        where: Callable[[str], str],
    ):
        self._console = console
        self._name = name
        self._total = total
        self._progress = progress
        self._memory = memory
        self._depths = depths
        self._workers = workers
        self._where = where
        self._started = time.monotonic()
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if can_redraw(console) else None
        )
        self._last_line = (-1, 0.0)
        self.stage = "starting"

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._written(self._live.stop)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def notify(self, stage: str) -> None:
        """Show the name of the current stage."""
        self.stage = stage
        self.show(force=True)

    def show(self, force: bool = False) -> None:
        """Update and draw; off a terminal, print a line at each step and stage, and every `LINE_EVERY_S`."""
        self._progress.update()
        self._written(partial(self._draw, force))

    def _written(self, write: Callable[[], object]) -> None:
        """Call `write`. After an error (terminal gone, closed pipe, full disk) the view stays silent."""
        try:
            write()
        except (OSError, SystemExit) as error:
            logger.warning("the live view stops: %r", error)
            self._console.quiet = True

    def _draw(self, force: bool) -> None:
        if self._live:
            self._live.update(self._panel(), refresh=True)
            return
        steps, at = self._last_line
        if force or self._progress.steps > steps or self.elapsed_s - at > LINE_EVERY_S:
            self._last_line = (self._progress.steps, self.elapsed_s)
            print_line(self._console, self._line(), markup=False)

    @property
    def _doing(self) -> str:
        """The stage; before the first step, what takes so long."""
        if self.stage != TRAINING or self._progress.steps:
            return self.stage
        if not self._progress.started:
            return LOADING
        return f"{FIRST}, {self._progress.scored:,} of {self._progress.started:,} so far"

    def _facts(self) -> dict[str, str]:
        progress = self._progress
        idle = progress.idle_ratio
        failed = {"model": "model faults", "infrastructure": "infrastructure faults"}
        outcomes = [f"{progress.outcomes['success']:,} ok"]
        outcomes += [f"{progress.outcomes[k]:,} {word}" for k, word in failed.items() if progress.outcomes[k]]
        workers = self._workers()
        restarts = sum(state.restarts for state in workers.values())
        depths = {name: depth for name, depth in self._depths().items() if depth}
        facts = {
            "step": f"{progress.steps}/{self._total or '?'}",
            "reward": f"{progress.rewards[-1]:.3f}" if progress.rewards else "-",
            **self._evaluation(),
            "requests": f"{progress.posted:,} posted, {', '.join(outcomes)}",
            "queues": "  ".join(f"{name} {depth}" for name, depth in depths.items()) or "empty",
            "workers": worker_counts(workers) or "-",
            "rollouts": "  ".join(f"{n:,} {state}" for state, n in sorted(progress.states.items())) or "-",
            "masked": masked_in_words(progress),
            "trainer idle": "-" if idle is None else f"{idle:.0%}",
            "memory": f"{self._memory.now / GIB:.1f} GiB (peak {self._memory.peak / GIB:.1f})",
            "elapsed": duration(self.elapsed_s),
        }
        if progress.left_s:
            facts["left"] = f"about {duration(progress.left_s)}"
        if wait := waiting(progress, self._where):
            facts["waiting for"] = in_words(wait)
        if progress.paused:
            facts["paused"] = "; ".join(progress.paused.providers)
        if advice := progress.masking_answers.advisories:
            facts["masking answers"] = "; ".join(advice)
        if restarts:
            facts["workers restarted"] = str(restarts)
        return facts

    def _evaluation(self) -> dict[str, str]:
        last, evaluating = self._progress.evaluation, self._progress.evaluating
        words = [last.words] if last else []
        words += [f"{evaluating} documents in progress"] if evaluating else []
        return {"evaluation": "; ".join(words)} if words else {}

    def _line(self) -> str:
        if self.stage != TRAINING:
            return f"{self._name}: {self.stage}"
        shown = ", ".join(f"{name} {value}" for name, value in self._facts().items() if name != "rollouts")
        doing = "" if self._progress.steps else f"{self._doing}; "
        return f"{self._name}: {doing}{shown}"

    def _panel(self) -> Group:
        facts = self._facts()
        head = Text.assemble((f"{self._name}  ", "bold"), (self._doing, "cyan"))
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        for name, value in facts.items():
            if name == "reward":
                row = Text.assemble((value, "bold green"), "  ", (sparkline(self._progress.rewards), "green"))
                table.add_row(name, row)
            elif name == "step" and self._total:
                bar = ProgressBar(total=self._total, completed=self._progress.steps, width=30)
                step = Table.grid(padding=(0, 1))
                step.add_row(value, bar)
                table.add_row(name, step)
            else:
                table.add_row(name, value)
        return Group(head, table)
