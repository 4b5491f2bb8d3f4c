"""Findings about the clocks of the machines that run workers, against that of Redis.

Leases and deadlines go by the clock of Redis alone. Times in ledgers and logs are those of the machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coordinator.check.doctor.finding import Finding, note, ok
from workers.broker.registry import WorkerRecord

MAX_OFFSET_S = 2.0


def clock_findings(workers: Sequence[WorkerRecord]) -> Iterator[Finding]:
    """A note for each machine whose clock is wrong; otherwise one line with the largest offset."""
    offsets: dict[str, float] = {}
    for worker in workers:
        if worker.clock_s is not None:
            offsets[worker.node] = max(offsets.get(worker.node, 0.0), worker.clock_s, key=abs)
    wrong = {node: offset_s for node, offset_s in sorted(offsets.items()) if abs(offset_s) > MAX_OFFSET_S}
    for node, offset_s in wrong.items():
        yield note(
            "queue",
            f"clock of {node}",
            f"{offset_s:+.1f} s against Redis",
            "synchronise it (NTP): times in ledgers and logs are wrong; leases are not affected",
        )
    if offsets and not wrong:
        largest = max(map(abs, offsets.values()))
        yield ok("queue", "clocks", f"those of workers are within {largest:.1f} s of that of Redis")
