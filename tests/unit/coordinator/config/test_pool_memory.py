"""The memory limit of a pool: its default depends on what its queues load."""

from __future__ import annotations

import pytest

from coordinator.config.pools import MEMORY_MB, PoolSettings


@pytest.mark.parametrize(
    ("queues", "given", "limit"),
    [
        (("code",), None, MEMORY_MB),
        (("search", "judge_text"), None, MEMORY_MB),
        (("diffusion",), None, 0),
        (("evaluate",), None, 0),
        (("diffusion",), 9, 9),
        (("code",), 0, 0),
    ],
)
def test_processes_that_load_no_model_are_limited(
    queues: tuple[str, ...], given: int | None, limit: int
) -> None:
    assert PoolSettings(queues=queues, memory_mb=given).limit_mb == limit
