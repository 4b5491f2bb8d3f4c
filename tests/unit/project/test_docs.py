"""The links of README and docs lead to files, and their commands have the options that they use."""

from __future__ import annotations

import ast
import re
import shlex

import pytest
import typer
from places import REPOSITORY

from coordinator.cli.main import app
from coordinator.config.settings import load_services

PAGES = [REPOSITORY / "README.md", REPOSITORY / "SECURITY.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    if "://" not in target
]


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{p.name}:{t}" for p, t in LINKS])
def test_a_relative_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_every_file_of_tests_that_a_page_names_exists(page):
    named = re.findall(r"`(tests/[a-z0-9_/]+\.py)", page.read_text())
    assert [file for file in named if not (REPOSITORY / file).exists()] == []


@pytest.mark.parametrize(
    "name",
    [
        "RAY_ADDRESS",
        "ARK_API_KEY",
        "SERP_API_KEY",
        "LLM_JUDGE_BASE_URL",
        "MLLM_JUDGE_BASE_URL",
        "QWEN_IMAGE_SERVER_URL",
        "QWEN_EDIT_SERVER_URL",
        "LLMI_REDIS_URL",
        "LLMI_REDIS_PASSWORD",
        "LLMI_AUTHOR_BASE_URL",
        "RUBRIC_JUDGE_BASE_URL",
        "OPENAI_API_KEY",
        "LLMI_STATE",
        "LLMI_CACHE",
    ],
)
def test_the_docs_name_every_variable_that_the_program_reads(name):
    assert f"`{name}`" in (REPOSITORY / "docs/services.md").read_text()


def rows_of_regressions():
    """(defect, the tests that its row names) of every table in docs/regressions.md."""
    for line in (REPOSITORY / "docs/regressions.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| defect of"):
            defect, *_, tests = [cell.strip() for cell in line.strip("|").split(" | ")]
            yield defect, re.findall(r"`([^`]+)`", tests)


def functions_of(file):
    tree = ast.parse((REPOSITORY / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


REGRESSIONS = list(rows_of_regressions())


def test_the_table_of_regressions_is_read():
    assert len(REGRESSIONS) > 30


@pytest.mark.parametrize(("defect", "named"), REGRESSIONS, ids=[defect for defect, _ in REGRESSIONS])
def test_every_defect_of_the_released_code_names_tests_that_exist(defect, named):
    assert named
    for one in named:
        file, _, name = one.partition("::")
        assert name.startswith("test_")
        assert name in functions_of(file), one


def fenced(language):
    """(page's name, block) of every fenced block of that language."""
    for page in PAGES:
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            yield page.name, block


SCRIPTS = {"ops/start_workers.sh": "workers start", "ops/stop_workers.sh": "workers stop"} | {
    f"ops/serve_{what}.sh": f"serve {what}" for what in ("judges", "images")
}


def commands():
    for page, block in fenced("sh"):
        for line in block.splitlines():
            words = shlex.split(line.partition(" #")[0].replace("…", "VALUE"))
            while words and "=" in words[0]:
                words = words[1:]
            if words[:1] == ["llmi"]:
                yield page, words[1:]
            elif words and words[0] in SCRIPTS:
                yield page, [*SCRIPTS[words[0]].split(), *words[1:]]


COMMANDS = list(commands())


def test_the_commands_of_the_docs_are_found():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{p}:{' '.join(w)}" for p, w in COMMANDS])
def test_every_command_in_the_docs_has_the_options_it_is_given(page, words):
    command = typer.main.get_command(app)
    words = [word for word in words if word not in ("COMMAND", "-h")]  # every command has -h
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {word for word in words if word.startswith("--")} <= known


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(("page", "text"), list(fenced("yaml")))
def test_every_configuration_in_the_docs_is_valid(page, text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    load_services(file)
