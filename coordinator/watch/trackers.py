"""What the trackers of a run did not take, for its page. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

_COUNT = re.compile(r"trackers/(.+)/(lost|waiting)")
FEW = 2  # rows that a tracker may be behind while it takes them


def notes(steps: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """A sentence for each tracker that lacked rows at the last step, and for each that was behind."""
    lost: dict[str, JsonValue] = {}  # of the last step that has it
    waiting: dict[str, JsonValue] = {}
    for step in steps:
        for field, count in step.items():
            if found := _COUNT.fullmatch(field):
                (lost if found[2] == "lost" else waiting)[found[1]] = count
    return [
        *(
            f"Tracker {name} lacks {count} rows; metrics.jsonl has all."
            for name, count in lost.items()
            if count
        ),
        *(
            f"{count} rows waited for tracker {name} at the last step; logs/trainer.log says why."
            for name, count in waiting.items()
            if isinstance(count, int | float) and count > FEW
        ),
    ]
