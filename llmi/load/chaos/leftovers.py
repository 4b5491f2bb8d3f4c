"""Gathers the evidence of a trial for the audit: ledger, outcomes and queues in Redis, blobs.

Invariant: it reads when no job is running any more, so that nothing changes afterwards.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from llmi.load.chaos.audit import Evidence
from llmi.load.testbed.groups import Sample
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger
from workers.broker.depths import read_depths
from workers.client import blocking as submit
from workers.errors import InfrastructureFault
from workers.redis_client import SUBMIT_TIMEOUT_S, connect_redis
from workers.settings import QueueSettings
from workers.storage.blobs import BlobStore

POLL_S = 0.25
SETTLE_S = 30.0  # for redelivered jobs that already have an outcome


def gather(
    folder: Path, batch: Sequence[Sample], url: str, store: BlobStore, replace_dead: Callable[[], None]
) -> Evidence:
    """The evidence of the trial in `folder`, on the Redis at `url`. Blocking.

    `replace_dead` replaces workers that die meanwhile.
    """
    left = _settled(url, replace_dead)
    ledger = read_ledger(folder)
    ids = list(ledger.requests)
    with connect_redis(QueueSettings(redis_url=url).url, SUBMIT_TIMEOUT_S) as client:
        stored = submit.outcomes(client, ids)
    starts = {request_id: outcome.attempt for request_id, outcome in stored.items()}
    return Evidence(ledger, batch, stored, starts, _broken(ledger, store), left)


def unreferenced(ledger: Ledger, blobs: Path) -> int:
    """Blobs that no outcome names."""
    referenced = {ref.sha256 for record in ledger.requests.values() for ref in record.images}
    there = {path.name for path in blobs.glob("*/*") if "." not in path.name}
    return len(there - referenced)


def outcomes(ledger: Ledger) -> dict[str, dict[str, int]]:
    """By kind, the number of requests by cause or success."""
    by_kind: dict[str, Counter[str]] = {}
    for record in ledger.requests.values():
        how = "none" if record.outcome is None else record.failure.cause if record.failure else "success"
        by_kind.setdefault(record.request.kind, Counter())[str(how)] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(by_kind.items())}


def _settled(url: str, replace_dead: Callable[[], None]) -> dict[str, int]:
    """Messages queued or held, by queue, when redelivered jobs have ended; waits at most `SETTLE_S`."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        replace_dead()
        left = {name: depth.waiting + depth.running for name, depth in read_depths(url).items()}
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)


def _broken(ledger: Ledger, store: BlobStore) -> set[str]:
    broken = set()
    for record in ledger.requests.values():
        for ref in record.images:
            try:
                store.get(ref)
            except InfrastructureFault:
                broken.add(ref.sha256)
    return broken
