"""What commands print is whole at every width, and a pipe is no terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import REPOSITORY
from rich.console import Console
from rich.table import Table

from coordinator.console.terminal import UNBOUNDED, can_redraw, make_console, print_table

LONG = "search-judge_text-judge_image-evaluate-12"


def written(table: Table, width: int, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_table(console, table)
    return console.file.getvalue()


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


@pytest.fixture
def wide() -> Table:
    table = Table("node", "worker", "queues", "state", "oldest", title="who serves", box=None)
    table.add_row("machine-of-somebody", LONG, "diffusion, edit, judge_text", "[yellow]loading[/]", "12 s")
    table.add_row("other", "code-1", "code", "ready", "0 s")
    return table


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, UNBOUNDED])
def test_every_cell_is_whole_at_every_width(wide: Table, width: int, terminal: bool) -> None:
    shown = written(wide, width, terminal)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert not [line for line in shown.splitlines() if line != line.rstrip()]
    if width >= 60:
        for cell in ("machine-of-somebody", "code-1", "loading", "ready", "12 s"):
            assert cell in shown


def test_without_a_width_a_row_is_a_line(wide: Table) -> None:
    lines = written(wide, UNBOUNDED).splitlines()
    assert len(lines) == 4  # title, head, two rows
    assert LONG in lines[2]


def test_where_words_do_not_fit_a_row_is_a_list(wide: Table) -> None:
    lines = written(wide, 50).splitlines()
    assert "queues diffusion, edit, judge_text" in lines
    assert lines.count("") == 1  # between the two rows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.text("abc é语 -/", min_size=0, max_size=70), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    ),
    st.integers(24, 140),
)
def test_no_character_is_lost(rows: list[list[str]], width: int) -> None:
    table = Table("one", "two", "three", box=None)
    for row in rows:
        table.add_row(*row)
    shown = squeezed(written(table, width))
    assert sorted(squeezed("".join(cell for row in rows for cell in row))) == sorted(
        shown.replace("one", "").replace("two", "").replace("three", "")
    )


def test_off_a_terminal_lines_are_not_broken(environment: pytest.MonkeyPatch) -> None:
    console = make_console()
    assert (console.width, can_redraw(console)) == (UNBOUNDED, False)


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("0", UNBOUNDED), ("wide", UNBOUNDED)])
def test_columns_names_the_width(columns: str, width: int, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COLUMNS", columns)
    assert make_console().width == width


def test_force_color_colours_a_pipe_and_makes_it_no_terminal(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FORCE_COLOR", "1")
    console = make_console()
    assert (console.color_system, can_redraw(console), console.width) == ("standard", False, UNBOUNDED)


def test_no_color_wins(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FORCE_COLOR", "1")
    environment.setenv("NO_COLOR", "1")
    assert make_console().no_color


def test_a_dumb_terminal_does_not_move(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TERM", "dumb")
    assert not can_redraw(Console(force_terminal=True))


def test_every_console_is_made_here() -> None:
    makers = [
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "coordinator").rglob("*.py")
        if re.search(r"(?<!\w)Console\(", path.read_text())
    ]
    assert makers == ["coordinator/console/terminal.py"]


def test_every_table_is_printed_by_put() -> None:
    for path in (REPOSITORY / "coordinator" / "commands").rglob("*.py"):
        code = path.read_text()
        tables = re.findall(r"(\w+) = Table\(", code)
        assert not [name for name in tables if re.search(rf"\.print\([^\n]*\b{name}\b", code)], path


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["workers", "start"],
        ["serve", "judges"],
        ["evaluate", "submit"],
        ["train"],
        ["bench", "soak"],
        ["blobs"],
        ["why"],
    ],
    ids=" ".join,
)
def test_help_is_whole_in_a_pipe(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    received = subprocess.run(
        [sys.executable, "-c", "from coordinator.cli.main import main; main()", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert received.returncode == 0
    assert "…" not in received.stdout
