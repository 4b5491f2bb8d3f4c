"""What the two trainings share: progress, and a step of the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[float], None]  # gets the share done, from 0 to 1


def update(model: Any, loss: Any, optimizer: Any, schedule: Any) -> None:
    """One step of the optimizer, with clipped gradients."""
    import torch

    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
