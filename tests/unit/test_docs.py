"""What README and docs point to is there."""

from __future__ import annotations

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
