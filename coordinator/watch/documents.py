"""What the documents of a run were like: their means in the first and the last steps, for the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from coordinator.watch.summary import first_and_last
from evaluation.pages.run_page import Table

NAMES = {
    "terms/r_num": "image count (r_num)",
    "terms/L": "text judge (L)",
    "terms/M": "image judge (M)",
    "terms/T": "required tools (T)",
    "document/images": "images",
    "document/text_chars": "characters of text",
    "caught/repeated": "share with a repeated image",
    "caught/unchanged": "share with an edit without effect",
    "caught/too_many": "share with too many tags",
}
TOOL = "tools/"


def tables(steps: Sequence[Mapping[str, JsonValue]]) -> list[Table]:
    """One table with the first and the last fifth of the steps; none without a value.

    `steps`: the metrics of each (`policy.rollout.reward_info`).
    """
    names = {
        **NAMES,
        **{metric: _tool(metric) for step in steps for metric in step if metric.startswith(TOOL)},
    }
    rows = []
    for metric, name in names.items():
        found = [value for step in steps if isinstance(value := step.get(metric), int | float)]
        if found:
            rows.append([name, *(f"{mean:.3g}" for mean in first_and_last(found))])
    return [Table("Documents", ["mean of a step", "first fifth", "last fifth"], rows)] if rows else []


def _tool(metric: str) -> str:
    """`tools/code/attempts` as "code: attempts"."""
    return metric.removeprefix(TOOL).replace("/", ": ")
