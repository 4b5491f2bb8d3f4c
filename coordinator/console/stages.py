"""Show the current step of a command, how much of it is done, and about how long the rest takes.

Invariants:
- On a terminal it is one line, redrawn, and gone at the end.
- Elsewhere a line is printed when a step starts and when it ends; between, at most every `every_s` seconds
  and only when the text has changed.
- An error of the output never ends the command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from coordinator.console.terminal import can_redraw, print_line

logger = logging.getLogger(__name__)
EVERY_S = 15.0
ESTIMATE_S, ESTIMATE_SHARE = 2.0, 0.02  # an estimate needs this much time, and this share done

# (name of the step, share done from 0 to 1 or None, details)
Step = Callable[[str, float | None, str], None]


def image_progress(step: Step) -> Callable[[int, int], None]:
    """A callback that shows how many images are checked."""
    return lambda done, of: step("checking the images", done / of if of else None, f"{done:,} of {of:,}")


def seconds_left(elapsed_s: float, share: float | None, first: float = 0.0) -> float | None:
    """Seconds until the end at the pace so far; None while too little is done. `first`: share done at the
    start."""
    if share is None or share > 1.0 or share - first < ESTIMATE_SHARE or elapsed_s < ESTIMATE_S:
        return None
    return elapsed_s * (1 - share) / (share - first)


def duration(seconds: float) -> str:
    """Format seconds as `48 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Stages:
    """A context manager that shows steps. `every_s`: least seconds between two lines of a step, where lines
    cannot be redrawn; `clock`: monotonic seconds."""

    def __init__(
        self, console: Console, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ):
        self._console = console
        self._every_s = every_s
        self._clock = clock
        self._name = ""
        self._began = self._printed_at = self._moved = 0.0
        self._first: float | None = None  # share done at `_moved`; the pace is measured from there
        self._printed: tuple[float | None, str] = (None, "")
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
        return self  # drawn from the first step on: a console redraws only one line at a time

    def __exit__(self, *_: object) -> None:
        self._written(self._bars.stop if self._bars else None)

    def step(self, name: str, share: float | None = None, detail: str = "") -> None:
        """Show that `name` runs and `share` of it is done. `detail`: such as "3 of 7 workers"."""
        now = self._clock()
        if name != self._name:
            self._name, self._first, self._moved = name, share, now
            self._began, self._printed_at, self._printed = now, now, (share, detail)
            self._written(lambda: self._begin(name, share, detail))
            return
        if self._first is None:  # time before the first share, such as an import, does not count for the pace
            self._first, self._moved = share, now
        left = seconds_left(now - self._moved, share, self._first or 0.0)
        rest = "" if left is None or share == 1 else f"about {duration(left)} left"
        self._written(lambda: self._go_on(now, share, detail, rest))

    def notify(self, line: str) -> None:
        """Print a line that stays."""
        self._written(lambda: print_line(self._console, line, style="dim", markup=False))

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
        early = now - self._printed_at < self._every_s and (share is None or share < 1)
        if early or (share, detail) == self._printed:
            return
        self._printed_at, self._printed = now, (share, detail)
        done = detail or ("" if share is None else f"{share:.0%}")
        facts = (done, duration(now - self._began), rest)
        self._line(f"{self._name}: {', '.join(fact for fact in facts if fact)}")

    def _line(self, words: str) -> None:
        print_line(self._console, words, markup=False)

    def _written(self, write: Callable[[], object] | None) -> None:
        """Call `write`. After an error (terminal gone, closed pipe, full disk) no more progress is shown."""
        try:
            if write is not None:
                write()
        except (OSError, SystemExit) as error:
            logger.warning("progress stops: %r", error)
            self._console.quiet = True


def _described(name: str, detail: str) -> str:
    return escape(f"{name}: {detail}" if detail else name)
