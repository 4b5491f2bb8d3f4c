"""Shows which step of a command is running, how much of it is done, and about how long the rest takes.

Invariants: on a terminal it is one line, drawn again and gone at the end; elsewhere a line when a step
begins, and later ones at most every `every_s` seconds and only if what they say has changed, but always for
the end of a step; showing never ends the command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from coordinator.console.terminal import can_redraw

logger = logging.getLogger(__name__)
EVERY_S = 15.0
TELLING_S = 2.0  # an estimate from less means nothing
TELLING_SHARE = 0.02

# (name of the step, share of it that is done from 0 to 1 or None, what else there is to say)
Step = Callable[[str, float | None, str], None]


def image_progress(step: Step) -> Callable[[int, int], None]:
    """Report how many images of how many are checked as a step of its own."""
    return lambda done, of: step("checking the images", done / of if of else None, f"{done:,} of {of:,}")


def seconds_left(elapsed_s: float, share: float | None, first: float = 0.0) -> float | None:
    """How long the rest takes at the pace so far, when `first` was done at the beginning; None while too
    little is done to say."""
    if share is None or share > 1.0 or share - first < TELLING_SHARE or elapsed_s < TELLING_S:
        return None
    return elapsed_s * (1 - share) / (share - first)


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Stages:
    """A context manager. `every_s`: the least time between two lines of a step where lines cannot be drawn
    again; `clock`: seconds that only grow."""

    def __init__(
        self, console: Console, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ):
        self._console = console
        self._every_s = every_s
        self._clock = clock
        self._name = ""
        self._began = self._told_at = self._moved = 0.0
        self._first: float | None = None  # share that was done at `_moved`, from where the pace is taken
        self._told: tuple[float | None, str] = (None, "")
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        if can_redraw(console):
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", table_column=Column(overflow="fold")),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}", style="dim", table_column=Column(overflow="fold")),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Stages:
        return self  # nothing is drawn before the first step: only one line of a console can move at a time

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._written(self._bars.stop if self._bars else None)

    def step(self, name: str, share: float | None = None, detail: str = "") -> None:
        """`name` is running, and `share` of it is done; `detail` says more, such as "3 of 7 workers"."""
        now = self._clock()
        if name != self._name:
            self._name, self._first, self._moved = name, share, now
            self._began, self._told_at, self._told = now, now, (share, detail)
            self._written(lambda: self._begin(name, share, detail))
            return
        if self._first is None:  # the time before the first share, such as an import, is no part of the pace
            self._first, self._moved = share, now
        left = seconds_left(now - self._moved, share, self._first or 0.0)
        rest = "" if left is None or share == 1 else f"about {duration(left)} left"
        self._written(lambda: self._go_on(now, share, detail, rest))

    def say(self, line: str) -> None:
        """A line that stays."""
        self._written(
            lambda: self._console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
        )

    def _begin(self, name: str, share: float | None, detail: str) -> None:
        if self._bars is None:
            self._line(f"{name}: {detail}" if detail else name)
            return
        self._bars.start()
        if self._bar is not None:
            self._bars.remove_task(self._bar)
        total = None if share is None else 1.0
        self._bar = self._bars.add_task(_described(name, detail), total=total, left="")
        self._bars.update(self._bar, completed=share or 0)

    def _go_on(self, now: float, share: float | None, detail: str, rest: str) -> None:
        if self._bars is not None and self._bar is not None:
            total = None if share is None else 1.0
            words = _described(self._name, detail)
            self._bars.update(self._bar, description=words, total=total, completed=share or 0, left=rest)
            return
        early = now - self._told_at < self._every_s and (share is None or share < 1)
        if early or (share, detail) == self._told:
            return
        self._told_at, self._told = now, (share, detail)
        done = detail or ("" if share is None else f"{share:.0%}")
        facts = (done, duration(now - self._began), rest)
        self._line(f"{self._name}: {', '.join(fact for fact in facts if fact)}")

    def _line(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _written(self, write: Callable[[], object] | None) -> None:
        """Call `write`. If the terminal is gone, the pipe is closed (rich exits for that) or the disk is
        full, the command goes on and shows no more progress.
        """
        try:
            if write is not None:
                write()
        except (OSError, SystemExit) as error:
            logger.warning("progress cannot be shown any more: %r", error)
            self._console.quiet = True


def _described(name: str, detail: str) -> str:
    return escape(f"{name}: {detail}" if detail else name)
