"""The rules that must hold after a trial, checked on its evidence.

Invariant: pure; every violation names its request, rollout or blob.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmi.load.testbed.groups import Sample
from policy.ledger.records import Ledger
from workers.errors import Cause, Fault
from workers.messages import Failure, Outcome


@dataclass(frozen=True)
class Evidence:
    """`stored`: outcomes in Redis, by request. `starts`: how often each request was claimed. `broken`: hashes
    of missing or damaged blobs. `left`: messages still queued or held, by queue.
    """

    ledger: Ledger
    batch: Sequence[Sample]
    stored: Mapping[str, Outcome]
    starts: Mapping[str, int]
    broken: Collection[str]
    left: Mapping[str, int]


@dataclass(frozen=True)
class Rule:
    """One rule: the number of things checked, and the violations."""

    name: str
    checked: int
    violations: tuple[str, ...]


def audit(evidence: Evidence) -> list[Rule]:
    """Check every rule."""
    ledger = evidence.ledger
    requests, rollouts = ledger.requests, ledger.rollouts
    return [
        Rule("a posted request has one outcome", len(requests), tuple(_outcomes(ledger))),
        Rule("a worker starts it before its deadline", len(evidence.starts), tuple(_unstarted(evidence))),
        Rule("the stored outcome is the one received", len(evidence.stored), tuple(_stored(evidence))),
        Rule("a referenced blob is there and whole", len(_refs(ledger)), tuple(_blobs(evidence))),
        Rule("a rollout has one terminal state", len(rollouts), tuple(_states(ledger))),
        Rule("no reward comes from an infrastructure failure", len(rollouts), tuple(_numbers(ledger))),
        Rule("no masked sample is in a batch, none twice", len(evidence.batch), tuple(_batch(evidence))),
        Rule("nothing is left in the queues", len(evidence.left), tuple(_left(evidence))),
    ]


def _outcomes(ledger: Ledger) -> Iterator[str]:
    yield from (text for text in ledger.violations if text.startswith(("outcome", "request")))
    for record in ledger.pending:
        yield f"request {record.request.request_id} ({record.request.kind}) has no outcome"


def _unstarted(evidence: Evidence) -> Iterator[str]:
    for request_id, record in evidence.ledger.requests.items():
        timed_out = record.failure is not None and record.failure.cause is Cause.TIMEOUT
        if timed_out and not evidence.starts.get(request_id):
            yield f"request {request_id} ({record.request.kind}) reached its deadline without a start"


def _stored(evidence: Evidence) -> Iterator[str]:
    for request_id, stored in evidence.stored.items():
        record = evidence.ledger.requests.get(request_id)
        if record is None:
            yield f"outcome of request {request_id}, which was never posted"
        elif record.outcome is not None and record.outcome.ok and record.outcome.result != stored.result:
            # A failure may have been received before a success was stored; never the other way round.
            yield f"request {request_id}: received {_describe(record.outcome)}, stored {_describe(stored)}"


def _describe(outcome: Outcome) -> str:
    result = outcome.result
    if isinstance(result, Failure):
        return result.cause
    return ", ".join(image.sha256[:12] for image in result.images) or str(result.verdict)


def _refs(ledger: Ledger) -> dict[str, str]:
    """Hash to request, of every image that a received success refers to."""
    return {ref.sha256: record.request.request_id for record in ledger.requests.values()
            for ref in record.images}  # fmt: skip


def _blobs(evidence: Evidence) -> Iterator[str]:
    for sha256, request_id in _refs(evidence.ledger).items():
        if sha256 in evidence.broken:
            yield f"blob {sha256} of request {request_id} is missing or damaged"


def _states(ledger: Ledger) -> Iterator[str]:
    yield from (text for text in ledger.violations if text.startswith("rollout"))
    for rollout in ledger.open:
        yield f"rollout {rollout.rollout_id} has no terminal state"


def _numbers(ledger: Ledger) -> Iterator[str]:
    failed: dict[str, list[str]] = defaultdict(list)
    for record in ledger.requests.values():
        if record.failure is not None and record.failure.fault is Fault.INFRASTRUCTURE:
            failed[record.request.owner].append(f"{record.request.kind} {record.failure.cause}")
    for rollout in ledger.rollouts.values():
        failures = failed[rollout.rollout_id]
        if rollout.reward is not None and failures:
            causes = ", ".join(failures)
            yield f"rollout {rollout.rollout_id} has reward {rollout.reward:.3f} despite {causes}"


def _batch(evidence: Evidence) -> Iterator[str]:
    seen: set[str] = set()
    for sample in evidence.batch:
        rollout = evidence.ledger.rollouts.get(sample.rollout_id)
        if sample.rollout_id in seen:
            yield f"rollout {sample.rollout_id} is in a batch twice"
        elif rollout is None or rollout.state != "trained" or rollout.reward != sample.reward:
            yield f"rollout {sample.rollout_id} is in a batch as {sample.reward}, against the ledger"
        seen.add(sample.rollout_id)


def _left(evidence: Evidence) -> Iterator[str]:
    for queue, count in evidence.left.items():
        if count:
            yield f"{count} messages are left in {queue}"
