"""How far a run is, read from the files it writes while it goes on.

Invariants: each line of a file is read once, however often `update` is called; an unfinished last line waits
for its end; nothing here touches a process of the run.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from coordinator.summary import idle_ratio
from policy.ledger_writer import LEDGER
from policy.training import METRICS
from workers.errors import Cause

REWARD = "critic/score/mean"


class Progress:
    """`rewards`: mean per step, in order; `outcomes`: requests by success, model or infrastructure."""

    def __init__(self, run: Path):
        self._run = run
        self._offsets: dict[Path, int] = {}
        self.rewards: list[float] = []
        self.steps = 0
        self.posted = 0
        self.outcomes: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self._timing: list[dict[str, Any]] = []

    @property
    def idle_ratio(self) -> float | None:
        """The trainer's share of waiting over the steps so far."""
        return idle_ratio(self._timing)

    def update(self) -> None:
        """Take in what was written since the last call."""
        for line in self._new_lines(self._run / METRICS):
            entry = json.loads(line)
            self.steps = entry["step"]
            self._timing.append(entry["data"])
            if isinstance(entry["data"].get(REWARD), int | float):
                self.rewards.append(entry["data"][REWARD])
        for path in sorted((self._run / LEDGER).glob("*.jsonl")):
            for line in self._new_lines(path):
                self._count(json.loads(line))

    def _count(self, entry: dict[str, Any]) -> None:
        match entry["type"]:
            case "posted":
                self.posted += 1
            case "ended":
                result = entry["outcome"]["result"]
                cause = result.get("cause")
                self.outcomes[Cause(cause).fault.value if cause else "success"] += 1
            case "closed":
                self.states[entry["state"]] += 1

    def _new_lines(self, path: Path) -> list[bytes]:
        try:
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offsets[path] = self._offsets.get(path, 0) + whole
        return data[:whole].splitlines()
