"""What the doctor finds: one line each, with a cure where something is amiss.

Invariants: `ok` was looked at just now, and its detail claims no more than that: servers of Redis, Ray and
judges were asked, settings and folders read; `fail` stops what the user asked for; `note` stops nothing, such
as what a run will start or build; a finding never holds a secret.
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
    area: str
    name: str
    state: State
    detail: str = ""
    cure: str = ""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "state": self.state.value}


def ok(area: str, name: str, detail: str = "") -> Finding:
    return Finding(area, name, State.OK, detail)


def note(area: str, name: str, detail: str, cure: str = "") -> Finding:
    return Finding(area, name, State.NOTE, detail, cure)


def fail(area: str, name: str, detail: str, cure: str) -> Finding:
    return Finding(area, name, State.FAIL, detail, cure)


def of_problems(area: str, name: str, problems: Sequence[str], fine: str) -> list[Finding]:
    """Preflight's problems ("what is wrong; what to do") as findings; one `ok` when there are none."""
    if not problems:
        return [ok(area, name, fine)]
    found = []
    for problem in problems:
        wrong, _, cure = problem.partition("; ")
        found.append(fail(area, name, wrong, cure))
    return found
