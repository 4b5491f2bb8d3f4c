"""What the trackers of a run did not take, for its page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

_BEFORE, _LOST = "trackers/", "/lost"


def notes(steps: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """A sentence for each tracker that lacked rows at the last step."""
    lost = {
        name.removeprefix(_BEFORE).removesuffix(_LOST): count  # of the last step that has it
        for step in steps
        for name, count in step.items()
        if name.startswith(_BEFORE) and name.endswith(_LOST)
    }
    return [
        f"Tracker {name} lacks {count} rows; metrics.jsonl has all." for name, count in lost.items() if count
    ]
