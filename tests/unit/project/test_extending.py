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
from policy import tools
from policy.document import Tag
from policy.grammar.tag_body import parse_tag
from rewards import axes, formulas
from rewards.facts import Facts
from rewards.settings import JudgeSettings, RewardSettings, check
from rewards.verdicts import TextVerdict
from workers.errors import ConfigError
from workers.extensions import loaders
from workers.jobs import JOBS
from workers.providers import registry
from workers.queues import QUEUES
from workers.settings import SearchSettings

GUIDE = Path(__file__).parents[3] / "docs" / "extending.md"
GROUPS = (
    *("llmi.search_providers", "llmi.tools", "llmi.queues"),
    *("llmi.axes", "llmi.formulas", "llmi.formats"),
)


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
    _forget()
    yield
    _forget()


def _forget() -> None:
    loaders.cache_clear()
    tools.tools.cache_clear()
    QUEUES.__dict__.pop("_specs", None)
    JOBS.pop("gradient", None)


def test_the_provider_validates_its_options(installed: None) -> None:
    settings = SearchSettings(provider="searx", base_url="http://searx:8080", options={"language": "de"})
    provider = registry.make("search", settings)
    assert provider.check() == []
    assert provider.service() == "searx at searx:8080"
    with pytest.raises(ConfigError, match=r"tools\.search\.options\.region"):
        registry.make("search", settings.model_copy(update={"options": {"region": "de"}}))


def test_the_tool_is_complete_and_its_tag_becomes_a_request(installed: None) -> None:
    assert tools.check() == []
    body = "{'source': 'gradient', 'description': 'd', 'params': {'colour': 'teal', 'steps': 3}}"
    tag = parse_tag(body, index=0, inputs=0)
    assert isinstance(tag, Tag)
    payload = tools.tools()["gradient"].payload(tag.params, None)
    assert payload.model_dump() == {"colour": "teal", "steps": 3}


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
