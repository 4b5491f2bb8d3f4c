"""`llmi why`: why one sample got its reward, and which samples of a run were masked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from coordinator.cli.options import Json, Run, Runs, run_folder
from coordinator.cli.output import output, plain
from coordinator.console.terminal import print_line, print_table

if TYPE_CHECKING:
    from coordinator.watch.masks import Masks
    from coordinator.watch.why import RequestReport, SampleReport

PROMPT = 200  # most characters of a prompt, or of a detail; --json has all
SIBLINGS = 16  # most samples of a group
ROUNDING = 1e-6  # a difference of rewards that is only rounding


def why(
    run: Run,
    rollout: Annotated[
        str,
        typer.Argument(
            metavar="ROLLOUT",
            help="Id of a sample, the start of one, or id of a request \\[default: list the masked samples].",
        ),
    ] = "",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show why a sample got its reward, or got none: its requests, verdicts, what masked it, and its group.

    Reads the run's ledger only, so it works while the run goes on, and after.
    """
    with output(as_json) as (console, result):
        from coordinator.watch.masks import list_masked
        from coordinator.watch.why import describe, find, ledger_of

        folder = run_folder(run, runs)
        ledger = ledger_of(folder)
        if rollout:
            sample = describe(ledger, find(ledger, rollout))
            result.update(sample.model_dump(mode="json"))
            show(console, sample)
        else:
            masks = list_masked(ledger, folder.name)
            result.update(masks.model_dump(mode="json"))
            show_masked(console, masks)


def show(console: Console, sample: SampleReport) -> None:
    """Print about ten lines: one for each fact and one for each request."""

    def line(what: str, words: str) -> None:
        print_line(console, f"[bold]{what:<12}[/]{plain(words)}")

    line("sample", sample.rollout)
    line("prompt", _short(sample.prompt) or "unknown: its start is not in the ledger")
    line("generated", _generated(sample))
    for request in sample.requests:
        line(request.kind, _request(request))
        for axis, reason in request.reasons.items():
            line("", f"{axis.replace('_', ' ')}: {_short(reason)}")
    if sample.reward is not None:
        line("reward", _reward(sample))
    for by, cause, detail in sample.masked_by:
        line("masked by", f"infrastructure: {by}: {cause}{f': {_short(detail)}' if detail else ''}")
    if not sample.requests:
        line("requests", "none")
    line("state", _state(sample))
    line("group", _group(sample))


def show_masked(console: Console, masks: Masks) -> None:
    from rich.table import Table

    from coordinator.watch.masks import in_ranges, short_id

    if masks.causes:
        table = Table("cause", "by", "samples", "steps", "such as", box=None, pad_edge=False)
        for one in masks.causes:
            cause = one.cause.replace("_", " ")
            examples = ", ".join(map(short_id, one.examples))
            table.add_row(cause, plain(one.by), f"{one.samples:,}", in_ranges(one.steps), examples)
        print_table(console, table)
    print_line(
        console,
        f"{masks.total:,} of {masks.rollouts:,} samples were masked by infrastructure; "
        f"{masks.dropped:,} more have a reward and were dropped with their groups",
    )


def _generated(sample: SampleReport) -> str:
    facts = [f"submitted in step {sample.submitted_step}"]
    if sample.versions is not None:
        oldest, newest = sample.versions
        facts.append(f"by weights {oldest}" if oldest == newest else f"by weights {oldest} to {newest}")
    if sample.tokens:
        facts.append(f"{sample.tokens:,} tokens")
    if sample.generation_s is not None:
        facts.append(f"{sample.segments} segments in {sample.generation_s:.1f} s")
    return ", ".join(facts)


def _request(one: RequestReport) -> str:
    facts = [one.outcome.replace("_", " ") + (f" ({one.fault})" if one.fault else "")]
    if one.verdict:
        grades = {axis: one.expected.get(axis, score) for axis, score in one.verdict.items()}
        facts.append(", ".join(f"{axis.replace('_', ' ')} {grade}" for axis, grade in grades.items()))
    times = (("queue", one.queue_s), ("run", one.run_s))
    facts += [f"{what} {seconds:.2f} s" for what, seconds in times if seconds is not None]
    facts += [words for words in (one.provider, f"worker {one.worker}" if one.worker else "") if words]
    return "; ".join(facts) + (f": {_short(one.detail)}" if one.detail else "")


class _Term(NamedTuple):
    """One term of a reward: its weight, its value, and both as text."""

    weight: float
    value: float
    text: str


def _reward(sample: SampleReport) -> str:
    """The reward with its terms, as an equation where they add up to it."""
    formula = sample.breakdown.get("formula")
    head = f"{sample.reward:.3f}{f' by {formula}' if formula else ''}"
    terms = _terms(sample.breakdown)
    if not terms:
        return head
    weight = sum(term.weight for term in terms)
    total = sum(term.weight * term.value for term in terms)
    if weight and sample.reward is not None and abs(total / weight - sample.reward) < ROUNDING:
        divisor = "" if abs(weight - 1) < ROUNDING else f" / {weight:g}"
        return f"{head} = ({' + '.join(term.text for term in terms)}){divisor}"
    return f"{head}, from {', '.join(term.text for term in terms)}"


def _terms(breakdown: Mapping[str, object]) -> list[_Term]:
    """The terms that have a weight. The image score `M` is scaled by `r_num`, the score of their number."""
    weights = breakdown.get("weights")
    terms = []
    for name, weight in weights.items() if isinstance(weights, dict) else ():
        value = breakdown.get(name)
        if not isinstance(value, int | float) or not isinstance(weight, int | float):
            continue
        text, factor = f"{weight:g} × {name} {value:.2f}", 1.0
        if name == "M":
            text += " × r_num"
            r_num = breakdown.get("r_num")
            factor = float(r_num) if isinstance(r_num, int | float) else 1.0
        terms.append(_Term(weight, value * factor, text))
    return terms


def _state(sample: SampleReport) -> str:
    where = f" in step {sample.step}" if sample.step else ""
    if sample.state == "masked" and sample.reward is not None:
        return f"dropped with its group{where}, though it has a reward: {sample.reason}"
    reason = "" if sample.masked_by or not sample.reason else f": {sample.reason}"
    return f"{sample.state}{where}{reason}"


def _group(sample: SampleReport) -> str:
    ends = [
        f"{name.removeprefix(sample.group + '_')} {state}{'' if reward is None else f' {reward:.2f}'}"
        for name, (reward, state) in sample.siblings.items()
    ]
    more = f", and {len(ends) - SIBLINGS} more" if len(ends) > SIBLINGS else ""
    return f"{sample.group}, {len(ends)} samples: {', '.join(ends[:SIBLINGS])}{more}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= PROMPT else f"{line[:PROMPT]}…"
