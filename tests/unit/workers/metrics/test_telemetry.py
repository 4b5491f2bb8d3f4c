"""Exact metrics for a recorded sequence of events, and what dashboards show of a task."""

from __future__ import annotations

import pytest
from celery.utils.saferepr import saferepr
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from workers.broker.dead_letters import MAX_SUMMARY_CHARS, payload_summary
from workers.celery_app.backend import Ended
from workers.celery_app.request import JobTask
from workers.errors import Cause
from workers.messages import Failure, Outcome, Request, Success
from workers.metrics.telemetry import ProducerMetrics, WorkerMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def outcome(
    result: Success | Failure | None = None,
    request_id: str = "r",
    kind: str = "code",
    started: float = 0.0,
    finished: float = 0.0,
) -> Outcome:
    return Outcome(
        request_id=request_id, kind=kind, result=result or Success(), started=started, finished=finished
    )


def numbers(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample that is not zero, by name and label values; of histograms the count and the sum."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.value and not sample.name.endswith(("_bucket", "_created"))
    }


def test_a_worker_counts_waits_service_and_outcomes(registry: CollectorRegistry) -> None:
    metrics = WorkerMetrics(registry)
    metrics.ended(outcome(started=103.0, finished=103.5), posted=100.0, claimed=102.0)
    metrics.ended(outcome(started=110.0, finished=112.0), posted=109.0, claimed=109.5)
    metrics.ended(outcome(Failure(cause=Cause.NO_HIT), started=7.0, finished=8.0), posted=6.0, claimed=6.5)
    metrics.ended(outcome(Failure(cause=Cause.WORKER_LOST)), posted=6.0, claimed=0.0)
    metrics.requeued("code")
    assert numbers(registry) == {
        "llmi_task_wait_seconds_count code": 3,
        "llmi_task_wait_seconds_sum code": 5.0,
        "llmi_task_service_seconds_count code success": 2,
        "llmi_task_service_seconds_sum code success": 2.5,
        "llmi_task_service_seconds_count code model": 1,
        "llmi_task_service_seconds_sum code model": 1.0,
        "llmi_task_outcomes_total code success ": 2,
        "llmi_task_outcomes_total code model no_hit": 1,
        "llmi_task_outcomes_total code infrastructure worker_lost": 1,
        "llmi_tasks_requeued_total code": 1,
    }


def test_an_outcome_that_is_returned_again_is_not_counted(registry: CollectorRegistry) -> None:
    metrics = WorkerMetrics(registry)
    metrics.ended(outcome(started=1.0, finished=2.0), posted=0.5, claimed=3.0)
    assert numbers(registry) == {}


def test_differing_clocks_give_no_negative_wait(registry: CollectorRegistry) -> None:
    WorkerMetrics(registry).ended(outcome(started=1.0, finished=2.0), posted=5.0, claimed=1.0)
    assert registry.get_sample_value("llmi_task_wait_seconds_sum", {"kind": "code"}) == 0.0


@pytest.mark.parametrize("kind", ["", "abc123"])
def test_only_kinds_of_the_queue_table_become_labels(kind: str, registry: CollectorRegistry) -> None:
    metrics = WorkerMetrics(registry)
    metrics.ended(outcome(kind=kind), posted=1.0, claimed=1.0)
    metrics.requeued(kind)
    assert numbers(registry) == {}


def test_a_kind_shows_zeros_before_its_first_task(registry: CollectorRegistry) -> None:
    WorkerMetrics(registry).show_zeros("edit")
    labels = {"kind": "edit", "result": "success", "cause": ""}
    assert registry.get_sample_value("llmi_task_outcomes_total", labels) == 0.0
    assert registry.get_sample_value("llmi_task_wait_seconds_count", {"kind": "edit"}) == 0.0


def test_a_producer_counts_what_is_in_flight_and_how_long(registry: CollectorRegistry) -> None:
    now = 50.0
    metrics = ProducerMetrics(registry, clock=lambda: now)
    for request_id, kind in (("a", "code"), ("b", "code"), ("c", "search")):
        metrics.posted(Request(request_id=request_id, kind=kind, payload={}, deadline=99.0))
    now = 52.0
    metrics.ended(outcome(request_id="a"))
    now = 53.0
    metrics.ended(outcome(Failure(cause=Cause.QUOTA), request_id="c", kind="search"))
    metrics.ended(outcome(request_id="a"))
    metrics.ended(outcome(request_id="never posted"))
    with metrics.rollout(), metrics.rollout():
        assert registry.get_sample_value("llmi_rollouts_in_progress") == 2
    assert numbers(registry) == {
        "llmi_requests_posted_total code": 2,
        "llmi_requests_posted_total search": 1,
        "llmi_requests_in_flight code": 1,
        "llmi_request_seconds_count code success": 1,
        "llmi_request_seconds_sum code success": 2.0,
        "llmi_request_seconds_count search infrastructure": 1,
        "llmi_request_seconds_sum search infrastructure": 3.0,
        "llmi_request_outcomes_total code success ": 1,
        "llmi_request_outcomes_total search infrastructure quota": 1,
    }


def test_a_rollout_that_raises_is_not_in_progress(registry: CollectorRegistry) -> None:
    metrics = ProducerMetrics(registry)
    with pytest.raises(ZeroDivisionError), metrics.rollout():
        raise ZeroDivisionError
    assert registry.get_sample_value("llmi_rollouts_in_progress") == 0


def printed(result: Success | Failure) -> str:
    """An outcome as Celery prints it for dashboards."""
    return saferepr(Ended(outcome(result, request_id="f" * 32)), JobTask.resultrepr_maxsize)


@pytest.mark.parametrize(
    ("result", "shows"),
    [
        (Failure(cause=Cause.NO_HIT, provider="p"), "failed: no_hit"),
        (Failure(cause=Cause.NO_HIT, detail='it\'s "none"\ntoday'), 'failed: no_hit: it\'s "none"\ntoday'),
        (Success(verdict={"total": 4}), "verdict {'total': 4}"),
        (Success(verdict={"total": 4}, source={"judge": "rules"}), "verdict {'total': 4}, judge rules"),
        (Success(source={"provider": "library", "more": {"a": 1}}), "provider library, more {'a': 1}"),
        (Success(), ""),
    ],
)
def test_an_outcome_is_printed_by_its_cause_or_its_verdict_and_source(
    result: Success | Failure, shows: str
) -> None:
    assert printed(result) == shows


def test_a_long_outcome_is_cut() -> None:
    shown = printed(Failure(cause=Cause.INTERNAL, detail="word " * 200))
    assert shown.startswith("failed: internal: word word")
    assert len(shown) <= JobTask.resultrepr_maxsize + len("...")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON))
def test_any_payload_is_shortened(payload: dict) -> None:
    request = Request(request_id="r", kind="code", payload=payload, deadline=1.0)
    assert len(payload_summary(request)) <= MAX_SUMMARY_CHARS


def test_a_long_prompt_is_shortened_in_the_middle() -> None:
    request = Request(
        request_id="r", kind="code", payload={"prompt": "a" * 500 + "the end", "n": 3}, deadline=1
    )
    assert payload_summary(request).startswith("prompt='aaa")
    assert payload_summary(request).endswith("the end', n=3")
