"""A soak distinguishes memory that grows from memory that fills up once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmi.load.soak.memory import MIB, Reading, read, series


def readings(rss_mib: list[float], files: list[int], role: str = "worker") -> list[Reading]:
    return [
        Reading(10.0 * number, role, 2, int(size * MIB), count)
        for number, (size, count) in enumerate(zip(rss_mib, files, strict=True))
    ]


@pytest.mark.parametrize(
    ("rss_mib", "files", "flat"),
    [
        ([100.0] * 9, [20] * 9, True),
        ([40.0, 60.0, 80.0, *[100.0] * 6], [5, 9, 20, *[20] * 6], True),  # fills in the first third
        ([100.0 + 10 * n for n in range(9)], [20] * 9, False),
        ([100.0] * 9, [20 + 2 * n for n in range(9)], False),
        ([100.0] * 8 + [900.0], [20] * 9, True),  # one moment, as when Redis rewrites its file
    ],
)
def test_growth_differs_from_caches_that_fill(rss_mib: list[float], files: list[int], flat: bool) -> None:
    [one] = series(readings(rss_mib, files))
    assert one.flat is flat


def test_a_role_that_was_there_for_a_moment_is_not_judged() -> None:
    brief = readings([10.0], [5], role="other")
    assert [one.role for one in series([*readings([100.0] * 9, [20] * 9), *brief])] == ["worker"]


def test_this_process_and_its_children_are_read() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = {reading.role: reading for reading in read(1.5)}
        child.kill()
    assert found["rollouts"].processes == 1
    assert found["rollouts"].files >= len(os.listdir("/proc/self/fd")) - 1
    assert found["rollouts"].rss > 10 * MIB
    assert found["other"].processes >= 1
    assert found["rollouts"].time_s == 1.5
