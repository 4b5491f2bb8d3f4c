"""Shows how far the check of input images is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from policy.checked_images import Progress as Report

WHAT = "checking the images"
LINE_S = 5.0


@contextlib.contextmanager
def shown(console: Console) -> Iterator[Report]:
    """A report that shows itself on `console` until the block ends."""
    if not console.is_terminal:
        yield lines(lambda line: console.print(line, highlight=False, soft_wrap=True))
        return
    columns = (TextColumn(WHAT), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(WHAT, total=None, visible=False)
        yield lambda done, of: bars.update(bar, completed=done, total=of, visible=True)


def lines(say: Callable[[str], None]) -> Report:
    """A report that says a line every `LINE_S` seconds, with what is left to do."""
    began = said = time.monotonic()
    last = 0

    def report(done: int, of: int) -> None:
        nonlocal began, said, last
        now = time.monotonic()
        if done <= last:  # another file
            began = now
        last = done
        if now - said >= LINE_S and done < of:
            said = now
            say(f"{WHAT}: {done:,} of {of:,}, about {(now - began) / done * (of - done):.0f} s left")

    return report
