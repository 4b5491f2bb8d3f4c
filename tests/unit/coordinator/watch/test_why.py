"""`llmi why` describes one sample, lists masked samples, and helps with a wrong id."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.cli.commands.why import show, show_masked
from coordinator.watch.masks import in_ranges, list_masked
from coordinator.watch.why import describe, find, ledger_of
from policy.document import Document, ImagePart, Tag, Task, TextPart
from policy.ledger.entries import Posted, RolloutEnded, Scored, Started, TextGenerated
from policy.ledger.masked import causes_of, masked_samples
from policy.ledger.reader import read_ledger
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score
from workers.errors import Cause, ConfigError
from workers.messages import Failure, Outcome, Request, Success

NOW = time.time()
GROUP = "5f3a0c1e-0000-5000-8000-000000000001"
OTHER = "5f3b0c1e-0000-5000-8000-000000000002"
BREAKDOWN = {
    "formula": "grounded",
    "r_num": 1.0,
    "L": 0.75,
    "M": 0.5,
    "tools": None,
    "weights": {"r_num": 0.2, "M": 0.3, "L": 0.5},
}
TASK = Task(question="Write about [bold]Kyoto[/] \x1b[31mnow.", image_num=1, tools=("search",))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": "mine"}))
    return folder


@pytest.fixture
def writer(run: Path):
    writer = LedgerWriter(run, "test")
    yield writer
    writer.close()


def image(outcome: Outcome) -> ImagePart:
    tag = Tag(source=outcome.kind, description="a temple", params={"query": "temple"})
    return ImagePart(index=0, tag=tag, raw="", request_id=outcome.request_id, outcome=outcome)


def ask(writer: LedgerWriter, owner: str, kind: str, result, *, queue_s: float = 1.0, run_s: float = 2.0):
    name = f"{owner}.{kind}" if kind.startswith("judge") else f"{owner}-0"
    request = Request(request_id=name, kind=kind, payload={}, deadline=NOW + 60, owner=owner)
    writer.append(Posted(time=NOW, request=request))
    if result is None:
        return None
    began = NOW + queue_s
    outcome = Outcome(
        request_id=name, kind=kind, result=result, worker="cpu-1@node", started=began, finished=began + run_s
    )
    writer.request_ended(outcome)
    return outcome


def sample(writer, name, score, outcome=None, *, state="trained", reason="", step=4, asked=3):
    writer.append(Started(time=NOW - 5, rollout_id=name, task=TASK, step=asked))
    writer.append(
        TextGenerated(time=NOW - 1, rollout_id=name, segments=((NOW - 5, NOW - 3), (NOW - 3, NOW - 1)))
    )
    parts = (TextPart(text="Kyoto."), *([image(outcome)] if outcome else []))
    document = Document(rollout_id=name, task=TASK, parts=parts)
    writer.append(Scored(time=NOW + 9, document=document, score=score, tokens=171, versions=(2, 3)))
    if state:
        writer.append(RolloutEnded(time=NOW + 10, rollout_id=name, state=state, reason=reason, step=step))


def mask(writer: LedgerWriter, name: str, *failures: Failure) -> None:
    """As `policy.rollout.rollout` records it: in no step of the trainer's."""
    causes = ", ".join(sorted({failure.cause for failure in failures}))
    sample(writer, name, Score(reward=None, masked_by=failures), state="masked", reason=causes, step=0)


@pytest.fixture
def trained(writer: LedgerWriter) -> str:
    name = f"{GROUP}_0"
    found = ask(writer, name, "search", Success(source={"provider": "library"}))
    ask(writer, name, "judge_text", Success(verdict={"text": 4, "image_tags": 5}, source={"judge": "rules"}))
    sample(writer, name, Score(reward=0.725, breakdown=BREAKDOWN), found)
    return name


@pytest.fixture
def lost(writer: LedgerWriter) -> str:
    name = f"{GROUP}_1"
    failure = Failure(cause=Cause.PROVIDER_DOWN, detail="HTTP 503", provider="openai")
    ask(writer, name, "judge_image", failure)
    ask(writer, name, "judge_text", None)
    sample(
        writer, name, Score(reward=None, masked_by=(failure,)), state="masked", reason="provider_down", step=0
    )
    return name


@pytest.fixture
def dropped(writer: LedgerWriter) -> str:
    name = f"{OTHER}_0"
    reason = "dropped with its group, which had fewer than 2 valid samples"
    sample(writer, name, Score(reward=0.6), state="masked", reason=reason, step=5)
    late = Failure(cause=Cause.TIMEOUT, detail="the rollout took longer than 600 s")
    sample(
        writer, f"{OTHER}_1", Score(reward=None, masked_by=(late,)), state="masked", reason="timeout", step=0
    )
    return name


def shown(run: Path, wanted: str) -> list[str]:
    ledger = ledger_of(run)
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    show(console, describe(ledger, find(ledger, wanted)))
    return console.file.getvalue().splitlines()


def test_a_trained_sample_is_described(run: Path, trained: str, lost: str) -> None:
    assert shown(run, trained) == [
        f"sample      {trained}",
        "prompt      Write about [bold]Kyoto[/] \ufffd[31mnow.",
        "generated   submitted in step 3, by weights 2 to 3, 171 tokens, 2 segments in 4.0 s",
        "search      success; queue 1.00 s; run 2.00 s; library; worker cpu-1@node",
        "judge_text  success; text 4, image tags 5; queue 1.00 s; run 2.00 s; rules; worker cpu-1@node",
        "reward      0.725 by grounded = (0.2 × r_num 1.00 + 0.3 × M 0.50 × r_num + 0.5 × L 0.75)",
        "state       trained in step 4",
        f"group       {GROUP}, 2 samples: 0 trained 0.72, 1 masked",
    ]


def test_a_judges_expected_scores_and_reasons_are_shown(run: Path, writer: LedgerWriter) -> None:
    name = f"{GROUP}_0"
    source = {"judge": "openai", "expected": {"text": 3.85}, "reasons": {"text": "The end is [b]missing[/]."}}
    ask(writer, name, "judge_text", Success(verdict={"text": 4}, source=source))
    sample(writer, name, Score(reward=0.7))
    assert shown(run, name)[3:5] == [
        "judge_text  success; text 3.85; queue 1.00 s; run 2.00 s; openai; worker cpu-1@node",
        "            text: The end is [b]missing[/].",
    ]


def test_a_sum_is_shown_only_where_it_makes_the_reward(run: Path, writer: LedgerWriter) -> None:
    weights = {"r_num": 0.2, "M": 0.3, "L": 0.5, "tools": 0.2}
    terms = {"formula": "grounded", "r_num": 0.5, "L": 0.75, "M": 0.5, "tools": 1.0, "weights": weights}
    reward = (0.2 * 0.5 + 0.3 * 0.5 * 0.5 + 0.5 * 0.75 + 0.2) / 1.2
    sample(writer, "a_0", Score(reward=reward, breakdown=terms))
    sample(writer, "b_0", Score(reward=reward + 0.01, breakdown=terms))
    sample(writer, "c_0", Score(reward=0.5, breakdown={"weights": "none", "L": 1}))
    line = {name: next(one for one in shown(run, name) if one.startswith("reward")) for name in "abc"}
    assert line["a"].endswith("+ 0.2 × tools 1.00) / 1.2")
    assert " = " not in line["b"]
    assert line["c"] == "reward      0.500"


def test_a_masked_sample_says_what_masked_it(run: Path, trained: str, lost: str) -> None:
    lines = shown(run, lost)
    assert "masked by   infrastructure: judge_image: provider_down: HTTP 503" in lines
    assert "state       masked in step 4" in lines  # where its sibling was trained on
    assert any(line.startswith("judge_image provider down (infrastructure)") for line in lines)
    assert "judge_text  pending" in lines
    assert len(lines) <= 10


def test_a_sample_dropped_with_its_group_is_not_shown_as_masked(run: Path, dropped: str) -> None:
    lines = shown(run, dropped)
    assert not [line for line in lines if line.startswith("masked by")]
    assert any(line.startswith("state       dropped with its group in step 5") for line in lines)
    assert lines[-1] == f"group       {OTHER}, 2 samples: 0 dropped with its group 0.60, 1 masked"


def test_a_sample_in_progress_is_open(run: Path, writer: LedgerWriter) -> None:
    writer.started("x_0", TASK, step=1)
    assert "state       open" in shown(run, "x_0")


def test_masked_samples_are_listed_by_cause_and_who_failed(
    run: Path, trained: str, lost: str, dropped: str
) -> None:
    masks = list_masked(ledger_of(run), "mine")
    assert [(one.cause, one.by, one.samples, one.steps) for one in masks.causes] == [
        ("provider_down", "judge_image", 1, [4]),
        ("timeout", "rollout", 1, [5]),
        ("dropped_with_group", "", 1, [5]),
    ]
    assert (masks.rollouts, masks.total, masks.dropped) == (4, 2, 1)
    assert masks.causes[0].examples == [lost]
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    show_masked(console, masks)
    assert "2 of 4 samples were masked by infrastructure; 1 more" in console.file.getvalue()


def test_a_run_without_masked_samples_says_so(run: Path, trained: str) -> None:
    console = Console(file=io.StringIO(), width=10_000, color_system=None)
    show_masked(console, list_masked(ledger_of(run), "mine"))
    assert console.file.getvalue().startswith("0 of 1 samples were masked")


@pytest.mark.parametrize("wanted", [f"{GROUP}_1", OTHER[:5], f"{OTHER}_0", "5f3a0c1e_1", "5f3b_0"])
def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(
    wanted: str, run: Path, trained: str, lost: str, writer: LedgerWriter
) -> None:
    sample(writer, f"{OTHER}_0", Score(reward=0.6))
    assert find(ledger_of(run), wanted).rollout_id in (lost, f"{OTHER}_0")


def test_the_id_of_a_request_finds_its_sample(run: Path, trained: str, lost: str) -> None:
    assert find(ledger_of(run), f"{trained}.judge_text").rollout_id == trained


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (GROUP, f"2 ids start with {GROUP}: {GROUP}_0, {GROUP}_1; give more of it"),
        (f"{GROUP}_7", f"similar ids: {GROUP}_0, {GROUP}_1;"),
        (f"{GROUP[:-1]}9_0", f"similar ids: {GROUP}_0"),
        ("zzz", "such as: "),
        ("", "no id starts with nothing"),
        ("[bold]", "such as: "),
    ],
)
def test_a_wrong_id_names_near_ones(wanted: str, says: str, run: Path, trained: str, lost: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(ledger_of(run), wanted)
    assert says in str(caught.value)


def test_folders_that_hold_no_run_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run has started there"):
        ledger_of(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no run has started there"):
        ledger_of(run)  # it has a configuration and no ledger yet


def test_an_evaluation_is_sent_to_its_report(run: Path) -> None:
    (run / "batch.json").write_text("{}")
    with pytest.raises(ConfigError, match="of an evaluation see `llmi evaluate report`"):
        ledger_of(run)


def test_a_ledger_of_another_version_is_refused(run: Path, trained: str) -> None:
    (run / "ledger" / "old.jsonl").write_text('{"type": "began", "time": 1}\n')
    with pytest.raises(ConfigError, match="another version"):
        ledger_of(run)


def test_a_torn_last_line_of_a_live_run_is_passed_over(run: Path, trained: str) -> None:
    (run / "ledger" / "other.jsonl").write_text('{"type": "clo')
    assert shown(run, trained)


def test_equal_failures_of_two_tools_are_counted_for_both(run: Path, writer: LedgerWriter) -> None:
    late = Failure(cause=Cause.TIMEOUT, detail="deadline")
    for kind in ("judge_text", "judge_image"):
        ask(writer, "g_0", kind, late)
    sample(
        writer, "g_0", Score(reward=None, masked_by=(late, late)), state="masked", reason="timeout", step=0
    )
    [one] = masked_samples(read_ledger(run))
    assert [reason.by for reason in one.reasons] == ["judge_text", "judge_image"]


def test_the_entry_that_masks_a_sample_has_the_same_causes(
    run: Path, trained: str, lost: str, dropped: str
) -> None:
    ledger = read_ledger(run)
    for one in masked_samples(ledger):
        rollout = one.rollout
        entry = RolloutEnded(
            time=1, rollout_id=rollout.rollout_id, state="masked", reason=rollout.reason, step=rollout.step
        )
        assert causes_of(entry) == one.causes


def test_an_unknown_reason_is_counted(run: Path) -> None:
    assert causes_of(RolloutEnded(time=1, rollout_id="a_0", state="masked")) == ("unknown",)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([], ""), ([3], "3"), ([1, 2, 3, 7], "1–3, 7"), ([5, 1, 2, 2], "1–2, 5"),
     (range(0, 40, 2), "0, 2, 4, 6, 8, 10, 12, 14 and 12 more")],
)  # fmt: skip
def test_steps_are_written_as_ranges(numbers, words: str) -> None:
    assert in_ranges(numbers) == words


def test_the_command_prints_one_json_object_and_fails_with_two(run: Path, trained: str, lost: str) -> None:
    def llmi(*words: str) -> subprocess.CompletedProcess[str]:
        code = "from coordinator.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "why", *words, "--dir", str(run.parent)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    sample = json.loads(llmi("mine", lost, "--json").stdout)
    assert (sample["rollout"], sample["masked_by"][0][:2]) == (lost, ["judge_image", "provider_down"])
    assert json.loads(llmi("mine", "--json").stdout)["total"] == 1
    wrong = llmi("mine", "nope")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no id starts with nope" in wrong.stderr
