"""Every command, also those of other packages, follows one convention for options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import typer

from coordinator.cli.main import app
from coordinator.cli.options import complete_config, complete_run

# Names that --dir, --host and --config have replaced.
REPLACED = {"--runs", "--folder", "--out-dir", "--logs", "--data", "--bind", "--address", "--settings"}
UNITS = ("-s", "-ms", "-hours", "-mb", "-mib")
WHOLE_UNITS = {"--minutes", "--seconds", "--hours"}
# Numbers without a unit: counts, ports and seeds.
COUNTS = {"--gpus", "--images", "--in-flight", "--limit", "--max-images", "--max-model-len", "--requests",
          "--rollouts", "--rounds", "--seed", "--singles", "--slots", "--steps", "--tensor-parallel-size",
          "--waiting", "--workers"}  # fmt: skip
SERVERS = {"redis", "metrics"}  # run until Ctrl-C and print no result


def commands(group: object = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())
EVERY = pytest.mark.parametrize("name", COMMANDS)


def options(name: str) -> dict[str, object]:
    return {
        next(opt for opt in one.opts if opt.startswith("--")): one
        for one in COMMANDS[name].params  # type: ignore[attr-defined]
        if one.param_type_name == "option"
    }


def arguments(name: str) -> list[object]:
    params = COMMANDS[name].params  # type: ignore[attr-defined]
    return [one for one in params if one.param_type_name == "argument"]


def test_the_commands_of_all_packages_are_there():
    assert {"train", "status", "runs list", "report", "demo", "evaluate demo", "bench client"} <= set(
        COMMANDS
    )


@EVERY
def test_every_option_and_argument_has_a_help_text(name):
    for one in (*options(name).values(), *arguments(name)):
        assert one.help, f"{name} {one.name}"
        assert one.help.rstrip("].").strip(), f"{name} {one.name}"


@EVERY
def test_the_same_thing_has_the_same_name(name):
    assert not REPLACED & set(options(name))
    for option in options(name):
        assert re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*", option)


@EVERY
def test_numbers_have_a_unit_in_their_name_or_are_counts(name):
    for option, one in options(name).items():
        number = one.type_descriptor.annotation in (int, float) or "range" in str(one.display_type(None))
        if number:
            known = option in COUNTS | WHOLE_UNITS or option.endswith(UNITS) or option.endswith("port")
            assert known, f"{name} {option}: put the unit into its name, or add it to the counts"


@EVERY
def test_every_command_with_a_result_has_json(name):
    assert ("--json" in options(name)) == (name not in SERVERS)


@EVERY
def test_every_command_can_be_quiet_and_verbose(name):
    found = options(name)
    assert set(found["--verbose"].opts) == {"--verbose", "-v"}
    assert set(found["--quiet"].opts) == {"--quiet", "-q"}


@EVERY
def test_the_help_of_a_command_begins_with_one_line(name):
    first = (COMMANDS[name].help or "").split("\n\n")[0]
    assert first.endswith(".")
    assert first[0].isupper()


def test_shell_completion_is_offered():
    names = {opt for one in typer.main.get_command(app).params for opt in one.opts}
    assert {"--install-completion", "--show-completion", "-v", "-q"} <= names


def test_a_shell_completes_runs_and_configurations(tmp_path):
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha" / "config.yaml").touch()
    (tmp_path / "also-no-run").mkdir()
    context = SimpleNamespace(params={"runs": tmp_path})
    assert complete_run(context, "al") == ["alpha"]
    assert complete_config("qwen3_4b") == ["qwen3_4b_grpo", "qwen3_4b_published"]
