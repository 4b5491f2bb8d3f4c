"""Read what TensorBoard would show."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read(folder: Path) -> Any:
    """TensorBoard's reader of a folder of event files, with every event."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events
