"""The consoles and tables of all commands.

Invariants:
- No cell of a table is cut, whatever the width.
- Off a terminal a line is as long as its text, unless COLUMNS names a width.
- NO_COLOR and FORCE_COLOR work as rich documents them; FORCE_COLOR alone does not make a pipe a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

Notify = Callable[[str], None]  # prints or logs one line

UNBOUNDED = 10_000  # columns off a terminal
LEAST = 20  # columns; a smaller COLUMNS is ignored
USUAL = 80
WORD = 20  # a longer word may be folded


_quiet = False


def hide_progress() -> None:
    """Make every later console on stderr silent, for --quiet."""
    global _quiet
    _quiet = True


def make_console(stderr: bool = False) -> Console:
    """A console on stdout, or on stderr."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    coloured = bool(os.environ.get("FORCE_COLOR")) and not terminal
    console = Console(stderr=stderr, force_terminal=terminal, color_system="standard" if coloured else "auto")
    console.quiet = stderr and _quiet
    named = os.environ.get("COLUMNS", "")
    if not (named.isdecimal() and int(named) >= LEAST):
        if not terminal:
            console.width = UNBOUNDED
        elif named.isdecimal():
            console.width = USUAL
    return console


def can_redraw(console: Console) -> bool:
    """Whether lines can be redrawn: a terminal with control codes."""
    return console.is_terminal and not console.is_dumb_terminal


def print_line(console: Console, text: str, *, style: str = "", markup: bool = True) -> None:
    """Print text that only the terminal wraps."""
    console.print(text, style=style, markup=markup, highlight=False, soft_wrap=True)


def notifier(console: Console) -> Notify:
    """A function that prints one dim line."""
    return partial(print_line, console, style="dim", markup=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table without cutting it: long cells are folded; when words do not fit, rows become lists."""
    for column in table.columns:
        column.overflow = "fold"
    if not table.show_header or _least_width(console, table) <= console.width:
        _print(console, table)
        return
    if table.title:
        console.print(table.title)
    for number in range(table.row_count):
        row = Table.grid(padding=(0, 1))
        row.add_column(style="dim", overflow="fold")
        row.add_column(overflow="fold")
        for column in table.columns:
            row.add_row(column.header, list(column.cells)[number])
        if number:
            console.print()
        _print(console, row)


def _print(console: Console, table: Table) -> None:
    """Print without the blanks that rich puts at the end of each line."""
    for line in console.render_lines(table, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            text, style, control = line[-1]
            line[-1] = Segment(text.rstrip(), style, control)
        console.print(Segments([*line, Segment.line()]))


def _least_width(console: Console, table: Table) -> int:
    """Columns that the table needs so that no word of up to `WORD` characters is broken."""
    edge = table.padding[1] + table.padding[3]
    return sum(
        edge + max((_longest_word(console, cell) for cell in (column.header, *column.cells)), default=0)
        for column in table.columns
    )


def _longest_word(console: Console, cell: object) -> int:
    text = cell.plain if isinstance(cell, Text) else console.render_str(str(cell)).plain
    return max((min(cell_len(word), WORD) for word in text.split()), default=0)
