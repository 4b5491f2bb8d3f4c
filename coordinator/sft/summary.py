"""The outcome of a supervised training: `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from coordinator.sft import resume
from coordinator.sft.prepare import Prepared
from coordinator.watch.summary import first_and_last, read_metrics
from policy.settings import METRICS

LOSS = "train/loss"


class SftSummary(BaseModel):
    """`left_out`: documents that were not taken, by reason. `reward_mean`: of those of runs, None without.
    `tokens`: of all documents, without their prompts; `longest`: of the longest, with its prompt.
    `loss_first`, `loss_last`: means of the first and last fifth of the steps, per token. `checkpoint`: the
    step of the last one.
    """

    name: str
    documents: int
    left_out: dict[str, int]
    reward_mean: float | None
    tokens: int
    longest: int
    steps: int
    epochs: int
    loss_first: float
    loss_last: float
    checkpoint: int
    seconds: float


def summarize(prepared: Prepared, seconds: float) -> SftSummary:
    """Summarize a training that has ended."""
    first, last = first_and_last(list(losses(prepared.run).values()))
    assert first is not None  # it had at least one step
    assert last is not None
    return SftSummary(
        name=prepared.config.name,
        **documents(prepared),
        loss_first=first,
        loss_last=last,
        checkpoint=resume.last_step(prepared.run),
        seconds=seconds,
    )


def documents(prepared: Prepared) -> dict[str, Any]:
    """What is trained on, before the training."""
    examples = prepared.selection.examples
    rewards = [one.reward for one in examples if one.reward is not None]
    return {
        "documents": len(examples),
        "left_out": dict(prepared.selection.left_out.most_common()),
        "reward_mean": sum(rewards) / len(rewards) if rewards else None,
        "tokens": prepared.tokens,
        "longest": prepared.longest,
        "steps": prepared.plan.steps,
        "epochs": prepared.plan.epochs,
    }


def losses(run: Path) -> dict[int, float]:
    """The loss of each step so far."""
    found = {}
    for row in read_metrics(run / METRICS):
        step, loss = row["step"], row.get(LOSS)
        if isinstance(step, int) and isinstance(loss, float):
            found[step] = loss
    return found
