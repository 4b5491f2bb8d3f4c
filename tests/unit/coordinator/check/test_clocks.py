"""`llmi doctor` names the machines with a wrong clock."""

from __future__ import annotations

import pytest

from coordinator.check.doctor.clocks import MAX_OFFSET_S, clock_findings
from coordinator.check.doctor.finding import State
from workers.broker.registry import WorkerRecord


def worker(node: str, clock_s: float | None) -> WorkerRecord:
    return WorkerRecord("w", node, ("code",), ready=True, clock_s=clock_s)


def test_right_clocks_are_one_line_with_the_largest_offset() -> None:
    [found] = clock_findings([worker("a", 0.1), worker("b", -0.4), worker("c", None)])
    assert (found.name, found.state) == ("clocks", State.OK)
    assert "within 0.4 s" in found.detail


@pytest.mark.parametrize("offset_s", [60.0, -60.0, MAX_OFFSET_S + 0.1])
def test_each_machine_with_a_wrong_clock_is_a_note(offset_s: float) -> None:
    found = list(clock_findings([worker("b", offset_s), worker("b", 0.0), worker("a", 0.0)]))
    assert [(one.name, one.state) for one in found] == [("clock of b", State.NOTE)]
    assert f"{offset_s:+.1f} s" in found[0].detail


def test_workers_that_have_not_reported_give_no_finding() -> None:
    assert list(clock_findings([worker("a", None)])) == []
