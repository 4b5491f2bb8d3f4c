"""The table of worked examples in docs/rewards.md against the formula."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rewards_documents import BLOB, F, I, P, X, document

from policy.document import Part
from rewards import formulas
from rewards.facts import Facts
from rewards.verdicts import ImageVerdict, TextVerdict

PAGE = Path(__file__).parents[3] / "docs/rewards.md"
HEAD = "| requested | tools | document | grades | r_num | M | L | T | R |"


def rows() -> Iterator[list[str]]:
    _, _, table = PAGE.read_text().partition(HEAD + "\n")
    for line in table.splitlines()[1:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def part(code: str) -> Part:
    kind, _, tool = code.partition(":")
    source = tool or "diffusion"
    return {
        "P": P("words"),
        "I": I(source),
        "R": I(source, blob=BLOB),
        "U": I("edit", unchanged=True),
        "F": F(source),
        "X": X(),
    }[kind]


def parts(codes: list[str]) -> list[Part]:
    """An image that is repeated later has the blob of its repeats."""
    made = [part(code) for code in codes]
    if "R" in codes:
        made[codes.index("I")] = part("R")
    return made


def scored(requested: str, tools: str, codes: str, grades: str) -> list[str]:
    prose, tags, axis = map(int, grades.split())
    facts = Facts.of(document(*parts(codes.split()), image_num=int(requested), tools=tuple(tools.split())))
    looked = ImageVerdict(image_quality=axis, task_relevance=axis, text_image_relevance=axis)
    score = formulas.get("grounded").score(facts, TextVerdict(text=prose, image_tags=tags), looked)
    terms = [score.breakdown[name] for name in ("r_num", "M", "L", "tools")]
    return ["" if term is None else f"{term:.3f}" for term in (*terms, score.reward)]


def test_the_table_is_read() -> None:
    assert len(list(rows())) > 20


@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row[:4]))
def test_the_example_is_what_the_formula_gives(row: list[str]) -> None:
    assert scored(*row[:4]) == row[4:]
