"""What README and docs point to is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKS = [
    (page, target)
    for page in PAGES
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    if "://" not in target
]


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{p.name}:{t}" for p, t in LINKS])
def test_a_relative_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()


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
        "LLMI_CACHE",
    ],
)
def test_readme_names_every_variable_that_the_program_reads(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def rows_of_regressions():
    """(defect, the tests that its row names) of every table in docs/regressions.md."""
    for line in (ROOT / "docs/regressions.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| defect of"):
            defect, *_, tests = [cell.strip() for cell in line.strip("|").split(" | ")]
            yield defect, re.findall(r"`([^`]+)`", tests)


def functions_of(file):
    tree = ast.parse((ROOT / file).read_text())
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
