"""Findings of `llmi doctor`: one line each, and for a problem what to do.

Invariants:
- `ok` was checked just now: Redis, Ray and judges answered a request, settings and folders were read.
- `fail` would stop a run. `note` would not, such as a part that a run starts or builds itself.
- A finding holds no secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line. `detail`: what was found; `hint`: what to do."""

    area: str
    name: str
    state: State
    detail: str = ""
    hint: str = ""

    def document(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {**asdict(self), "state": self.state.value}


def ok(area: str, name: str, detail: str = "") -> Finding:
    return Finding(area, name, State.OK, detail)


def note(area: str, name: str, detail: str, hint: str = "") -> Finding:
    return Finding(area, name, State.NOTE, detail, hint)


def fail(area: str, name: str, detail: str, hint: str) -> Finding:
    return Finding(area, name, State.FAIL, detail, hint)


def of_problems(area: str, name: str, problems: Sequence[str], fine: str) -> list[Finding]:
    """Problems ("what is wrong; what to do") as findings; one `ok` with `fine` when there are none."""
    if not problems:
        return [ok(area, name, fine)]
    found = []
    for problem in problems:
        wrong, _, hint = problem.partition("; ")
        found.append(fail(area, name, wrong, hint))
    return found
