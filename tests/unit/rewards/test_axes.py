"""Axes and formulas of other packages, registered by entry points."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from fake_services import png
from packages import install
from pydantic import ValidationError
from rewards_documents import I, P, document

from policy.document import Document
from policy.scoring import Draft
from policy.tools import tools
from rewards import axes, formulas
from rewards.facts import Facts
from rewards.judges import prompts, rules
from rewards.judges.openai import schema
from rewards.judges.payloads import JudgeTextPayload
from rewards.judges.prompts import image_rubric, text_rubric
from rewards.scorer import QueueScorer
from rewards.settings import JudgeSettings, RewardSettings, check
from rewards.verdicts import ImageVerdict, TextVerdict, with_axes
from workers.client.handle import RequestHandle
from workers.errors import Cause, ConfigError
from workers.extensions import loaders
from workers.jobs import run
from workers.messages import NORMAL, Failure, Request
from workers.storage.blobs import BlobStore

Install = Callable[[str, Mapping[str, str], Mapping[str, Mapping[str, str]]], None]

AXIS = """
from rewards.axes import Axis

def rules(payload):
    return 5 if payload.question.isascii() else 1

TONE = Axis("tone", "prose", '"tone": how it sounds.\\n5: kind. 1: rude.\\n', weight=2.0, by_rules=rules)
"""
FORMULA = """
from policy.scoring import Score
from rewards.formula import Formula

class Shortest(Formula):
    name = "shortest"

    def needs_image_verdict(self, facts):
        return False

    def score(self, facts, text, image, *, vl=False):
        return Score(reward=1.0 / (1 + facts.attempts), breakdown={"formula": self.name})
"""


@pytest.fixture
def install_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install_package(name, modules, entry_points)` for one test."""
    loaders.cache_clear()
    yield lambda name, modules, points: install(monkeypatch, tmp_path, modules, points, name)
    loaders.cache_clear()
    for module in ("kind_axis", "brief"):
        sys.modules.pop(module, None)


@pytest.fixture
def tone(install_package: Install) -> None:
    install_package("kind", {"kind_axis": AXIS}, {"llmi.axes": {"tone": "kind_axis:TONE"}})


def test_the_prompts_of_the_published_axes_have_not_changed() -> None:
    """Other prompts would give other grades: a change here is a change of the reward."""
    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in (text_rubric(), image_rubric())]
    assert digests == ["d4911c02f113264a", "661f2dada6001558"]


def test_the_text_judges_prompt_describes_a_new_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**tools(), "music": replace(tools()["search"], name="music", prompt="writes a score.")}
    monkeypatch.setattr(prompts, "tools", lambda: more)
    assert "the user gave.\n- music: writes a score.\n\nGive two" in text_rubric()


def test_a_new_axis_is_judged_and_counts_in_grounded_only(tone: None) -> None:
    grounded, llmi = formulas.get("grounded"), formulas.get("llmi")
    added = axes.added(grounded.axes, "text")
    assert added == ("tone",)
    assert axes.added(llmi.axes, "text") == ()
    rubric = text_rubric(added)
    assert "Give three whole numbers" in rubric
    assert '"tone": how it sounds.' in rubric
    assert rubric.endswith('{"text": <1-5>, "image_tags": <1-5>, "tone": <1-5>}\n')
    assert schema(with_axes(TextVerdict, added))["required"] == ["text", "image_tags", "tone"]

    doc = document(P("A heron in the reeds."), I(), image_num=1)
    payload = JudgeTextPayload.of(doc, axes=added)
    verdict = rules.judge_text(payload).verdict
    assert verdict is not None
    assert verdict["tone"] == 5

    facts, image = Facts.of(doc), ImageVerdict.best()
    rude = with_axes(TextVerdict, added).read({"text": 5, "image_tags": 5, "tone": 1})
    score = grounded.score(facts, rude, image)
    assert score.breakdown["axis_weights"] == {"text": 1.4, "image_tags": 0.6, "tone": 2.0}
    assert score.breakdown["L"] == pytest.approx(0.5)
    published = llmi.score(facts, rude, image)
    assert published.reward == 1.0
    assert published.breakdown["axes"] == {"text": 5, "image_tags": 5, **image.scores}


class Jobs:
    """A client that runs each request's job at once."""

    wait_s = 600.0
    priority = NORMAL

    def __init__(self, blobs: BlobStore):
        self.blobs = blobs

    async def post(self, request: Request) -> RequestHandle:
        handle = RequestHandle(request)
        handle.resolve(run(request, self.blobs))
        return handle

    async def cancel(self, request_id: str) -> None:
        raise AssertionError(f"{request_id} has an outcome")


@pytest.mark.parametrize(("formula", "tones"), [("grounded", [5]), ("llmi", [])])
async def test_a_document_is_judged_on_a_new_axis(
    tone: None, tmp_path: Path, formula: str, tones: list[int]
) -> None:
    blobs = BlobStore(str(tmp_path / "blobs"))
    doc = document(P("A heron in the reeds."), I(blob=blobs.put(png("teal"))), image_num=1)
    finished: asyncio.Future[Document] = asyncio.get_running_loop().create_future()
    finished.set_result(doc)
    scorer = QueueScorer(RewardSettings(formula=formula), JudgeSettings())
    score = await scorer.score(Draft(document=doc, finished=finished, client=Jobs(blobs)))
    assert not score.masked_by
    assert score.breakdown["judges"] == {"judge_text": "rules", "judge_image": "rules"}
    assert [grade for name, grade in score.breakdown["axes"].items() if name == "tone"] == tones  # type: ignore[union-attr]


async def test_an_axis_that_a_worker_does_not_have_masks_and_gives_a_hint(tmp_path: Path) -> None:
    payload = JudgeTextPayload.of(document(P("x"), image_num=0), axes=("tone",))
    outcome = run(Request.make("judge_text", payload, timeout_s=60), BlobStore(str(tmp_path)))
    assert isinstance(outcome.result, Failure)
    assert outcome.result.cause is Cause.BAD_MESSAGE
    assert "install on this worker the package" in outcome.result.detail


def test_an_axis_without_rules_needs_a_judge_model(install_package: Install) -> None:
    source = AXIS.replace(", by_rules=rules", "")
    install_package("kind", {"kind_axis": source}, {"llmi.axes": {"tone": "kind_axis:TONE"}})
    [problem] = check(JudgeSettings(), RewardSettings())
    assert "cannot grade the axis 'tone'" in problem
    assert check(JudgeSettings(), RewardSettings(formula="llmi")) == []


def test_an_unknown_axis_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'tone' is not a judge axis; known are text, .*llmi\.axes"):
        axes.named(("tone",))


def test_a_formula_of_another_package_scores_a_document(install_package: Install) -> None:
    install_package("brief", {"brief": FORMULA}, {"llmi.formulas": {"shortest": "brief:Shortest"}})
    assert formulas.names() == ("grounded", "llmi", "shortest")
    formula = formulas.get(RewardSettings(formula="shortest").formula)
    facts = Facts.of(document(P("x"), I(), image_num=1))
    assert formula.score(facts, TextVerdict.best(), None).reward == 0.5


def test_an_unknown_formula_is_refused_with_the_known_ones() -> None:
    known = r"'best' is not a reward formula; known are grounded, llmi .*llmi\.formulas"
    with pytest.raises(ValidationError, match=known):
        RewardSettings(formula="best")
    with pytest.raises(ConfigError, match=rf"reward\.formula: {known}"):
        formulas.get("best")


def test_two_implementations_of_one_name_are_refused(install_package: Install) -> None:
    install_package("brief", {"brief": FORMULA}, {"llmi.formulas": {"llmi": "brief:Shortest"}})
    with pytest.raises(ConfigError, match="rename it"):
        formulas.names()
