"""The lines of a run's metrics file."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import JsonValue

Row = dict[str, JsonValue]


def metric_lines(path: Path) -> list[Row]:
    """The metrics of each line, flat, with their `step`. A torn line is skipped.

    The last step may have several lines: evaluations may end after it.
    """
    rows: list[Row] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        rows.append({**entry["data"], "step": entry["step"]})
    return rows
