"""Waiting for a condition in a test: `until` on an event loop, `wait_until` without one."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
WAIT_S = 30.0
EVERY_S = 0.02


async def until(condition: Callable[[], T], timeout_s: float = WAIT_S, every_s: float = EVERY_S) -> T:
    """Wait until `condition` returns a true value, and return it.

    `every_s`: seconds between two calls. Raises `AssertionError` with the condition after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        _check(deadline, condition, value, timeout_s)
        await asyncio.sleep(every_s)
    return value


def wait_until(condition: Callable[[], T], timeout_s: float = WAIT_S, every_s: float = EVERY_S) -> T:
    """As `until`, blocking."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        _check(deadline, condition, value, timeout_s)
        time.sleep(every_s)
    return value


def _check(deadline: float, condition: Callable[[], object], value: object, timeout_s: float) -> None:
    if time.monotonic() < deadline:
        return
    try:
        source = textwrap.dedent(inspect.getsource(condition)).strip()
    except (OSError, TypeError):  # a built-in, a partial or a mock
        source = repr(condition)
    raise AssertionError(f"not within {timeout_s:g} s, last {value!r}: {source}")
