"""The tests' own way to wait for a condition."""

from __future__ import annotations

import pytest
from waiting import until, wait_until


async def test_the_first_true_value_is_returned():
    values = iter((0, 0, 7))
    assert await until(lambda: next(values), every_s=0.0) == 7


def test_a_condition_that_never_holds_is_printed_with_its_last_value():
    with pytest.raises(AssertionError, match=r"not within 0 s, last 0: .*len"):
        wait_until(lambda: len(""), timeout_s=0.0)
