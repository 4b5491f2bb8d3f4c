"""Commands that other packages add to `llmi` by entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from packages import install
from typer.testing import CliRunner

from coordinator.cli import main as cli
from coordinator.cli import verbosity
from workers.errors import ConfigError

MODULE = """
import typer

def greet():
    print("good morning")

group = typer.Typer()

@group.command()
def first():
    pass

@group.command()
def second():
    print("second of the group")
"""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    app = typer.Typer()
    app.add_typer(typer.Typer(), name="evaluate")
    monkeypatch.setattr(cli, "app", app)
    return app


def test_a_package_adds_a_command_a_group_and_a_command_of_a_group(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    points = {"greet": "greetings:greet", "greetings": "greetings:group", "evaluate.greet": "greetings:greet"}
    install(monkeypatch, tmp_path, {"greetings": MODULE}, {cli.ENTRY_POINTS: points})

    cli.add_commands()

    run = CliRunner().invoke
    assert run(app, ["greet"]).output == "good morning\n"
    assert run(app, ["greetings", "second"]).output == "second of the group\n"
    assert run(app, ["evaluate", "greet"]).output == "good morning\n"
    assert cli.PANEL in run(app, ["--help"]).output


def test_the_demo_and_the_benchmarks_are_added_this_way(app: typer.Typer):
    cli.add_commands()

    top = typer.main.get_command(app)
    assert {"demo", "bench", "chaos"} <= set(top.commands)
    assert "demo" in top.commands["evaluate"].commands


def test_a_command_of_an_unknown_group_is_refused(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(
        monkeypatch, tmp_path, {"greetings": MODULE}, {cli.ENTRY_POINTS: {"nowhere.greet": "greetings:greet"}}
    )

    with pytest.raises(ConfigError, match="there is no group 'nowhere'"):
        cli.add_commands()


def test_a_returned_value_is_no_exit_code(app: typer.Typer, monkeypatch: pytest.MonkeyPatch):
    app.command("count")(lambda: 3)
    verbosity.add_options(app)
    monkeypatch.setattr(sys, "argv", ["llmi", "count"])

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 0
