"""What the documents and prompts of a run were like: means of the first and the last steps, for the page.
Pure.
"""

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
PROMPTS = {
    "prompts/signal": "share of the groups with different rewards",
    "prompts/difficulty": "1 - mean reward of the prompts tried",
    "prompts/untried": "prompts without a result",
    "prompts/effective": "prompts, weighed by how often they are read",
}
TOOL = "tools/"


def tables(steps: Sequence[Mapping[str, JsonValue]]) -> list[Table]:
    """Tables with the first and the last fifth of the steps; none without a value.

    `steps`: the metrics of each (`policy.rollout.reward_info`, `policy.data.prompt_results`).
    """
    tools = {metric: _tool(metric) for step in steps for metric in step if metric.startswith(TOOL)}
    found = (_table("Documents", NAMES | tools, steps), _table("Prompts", PROMPTS, steps))
    return [table for table in found if table.rows]


def _table(title: str, names: Mapping[str, str], steps: Sequence[Mapping[str, JsonValue]]) -> Table:
    rows = []
    for metric, name in names.items():
        found = [value for step in steps if isinstance(value := step.get(metric), int | float)]
        if found:
            rows.append([name, *(f"{mean:.3g}" for mean in first_and_last(found))])
    return Table(title, ["mean of a step", "first fifth", "last fifth"], rows)


def _tool(metric: str) -> str:
    """`tools/code/attempts` as "code: attempts"."""
    return metric.removeprefix(TOOL).replace("/", ": ")
