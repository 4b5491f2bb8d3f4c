"""The examples of docs/extending.md, installed as packages and used."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import install
from rewards_documents import I, P, document

from evaluation.formats import load
from rewards import axes, formulas
from rewards.facts import Facts
from rewards.settings import JudgeSettings, RewardSettings, check
from rewards.verdicts import TextVerdict
from workers.extensions import loaders

GUIDE = Path(__file__).parents[3] / "docs" / "extending.md"
GROUPS = ("llmi.axes", "llmi.formulas", "llmi.formats")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every example with an entry point of this module's groups."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    modules = {name: source.removeprefix("\n") for name, source in found}
    points: dict[str, dict[str, str]] = {}
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        points |= tomllib.loads(block).get("project", {}).get("entry-points", {})
    install(monkeypatch, tmp_path, modules, {group: points[group] for group in GROUPS}, "house")
    loaders.cache_clear()
    yield
    loaders.cache_clear()


def test_the_axis_joins_grounded_and_needs_a_judge_model(installed: None) -> None:
    assert axes.added(formulas.get("grounded").axes, "text") == ("tone",)
    assert "'tone'" in check(JudgeSettings(), RewardSettings())[0]


def test_the_formula_scores_a_document(installed: None) -> None:
    formula = formulas.get(RewardSettings(formula="brief").formula)
    facts = Facts.of(document(P("x"), *[I()] * 4, image_num=0))
    assert formula.score(facts, TextVerdict.best(), None).reward == pytest.approx(0.9)


def test_the_format_reads_its_file(installed: None, tmp_path: Path) -> None:
    (tmp_path / "bench.csv").write_text("A page about herons.,It names the heron.\n")
    [entry] = load(tmp_path / "bench.csv").entries
    assert (entry.item_id, entry.criteria) == ("0001", {"r1": "It names the heron."})
