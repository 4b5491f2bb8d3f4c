"""`jobs.run` returns an outcome whatever the job, the payload or the clock does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.jobs import JOBS, Job, JobContext, job, run
from workers.messages import Failure, Outcome, Request, SearchPayload, Success
from workers.storage.blobs import BlobStore

Call = Callable[[SearchPayload, JobContext], Success]


@pytest.fixture
def perform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`perform(call, payload=..., deadline=...)` runs `call` as the search job."""

    def perform(
        call: Call, payload: object = None, deadline: float | None = None, kind: str = "search"
    ) -> Outcome:
        monkeypatch.setattr("workers.jobs.JOBS", {"search": Job("search", SearchPayload, call)})
        request = Request.model_validate(
            {
                "request_id": "r",
                "kind": kind,
                "payload": {"query": "owl"} if payload is None else payload,
                "deadline": time.time() + 60.0 if deadline is None else deadline,
            }
        )
        return run(request, BlobStore(str(tmp_path)))

    return perform


def succeed(payload: SearchPayload, context: JobContext) -> Success:
    return Success(source={"query": payload.query, "remaining_s": context.remaining_s})


def cause_of(outcome: Outcome) -> Cause | None:
    return outcome.result.cause if isinstance(outcome.result, Failure) else None


def test_an_outcome_names_worker_and_times(perform: Callable[..., Outcome]) -> None:
    before = time.time()
    outcome = perform(succeed)
    assert isinstance(outcome.result, Success)
    assert outcome.result.source["query"] == "owl"
    assert 59.9 - (time.time() - before) <= outcome.result.source["remaining_s"] <= 60.0
    assert before <= outcome.started <= outcome.finished <= time.time()
    assert outcome.worker


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ModelFault(Cause.NO_HIT, "nothing"), Cause.NO_HIT),
        (InfrastructureFault(Cause.QUOTA, "later"), Cause.QUOTA),
        (RuntimeError("a bug"), Cause.INTERNAL),
        (MemoryError(), Cause.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_exception_of_a_job_has_a_cause(
    error: Exception, cause: Cause, perform: Callable[..., Outcome]
) -> None:
    def fail(payload: SearchPayload, context: JobContext) -> Success:
        raise error

    assert cause_of(perform(fail)) is cause


def test_a_request_past_its_deadline_is_not_started(perform: Callable[..., Outcome]) -> None:
    called = []

    def note(payload: SearchPayload, context: JobContext) -> Success:
        called.append(payload)
        return Success()

    assert cause_of(perform(note, deadline=time.time() - 1.0)) is Cause.TIMEOUT
    assert called == []


def limited(limit_s: float, *, deadline_s: float) -> Request:
    payload = SearchPayload(query="owl")
    return Request.make("search", payload, timeout_s=deadline_s, limit_s=limit_s)


def test_a_jobs_time_limit_counts_from_its_start(tmp_path: Path) -> None:
    """Its limit counts from its start, however long it waited. The deadline limits both."""
    blobs, request = BlobStore(str(tmp_path)), limited(20.0, deadline_s=600.0)
    assert JobContext(request, blobs, request.deadline - 400).deadline == request.deadline - 380
    assert JobContext(request, blobs, request.deadline - 5).deadline == request.deadline
    unlimited = request.model_copy(update={"limit_s": None})
    assert JobContext(unlimited, blobs, request.deadline - 400).deadline == request.deadline


def test_a_request_without_time_for_its_whole_limit_is_not_started(
    perform: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workers.jobs.JOBS", {"search": Job("search", SearchPayload, succeed)})
    late = run(limited(20.0, deadline_s=19.0), BlobStore(str(tmp_path)))
    assert (cause_of(late), late.run_s < 1.0) == (Cause.TIMEOUT, True)
    assert run(limited(20.0, deadline_s=30.0), BlobStore(str(tmp_path))).ok


def test_run_time_does_not_depend_on_the_system_clock(
    perform: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back while a job ran made its outcome invalid."""

    def set_back(payload: SearchPayload, context: JobContext) -> Success:
        now = time.time()
        monkeypatch.setattr("workers.jobs.time.time", lambda: now - 3600.0)
        return Success()

    outcome = perform(set_back)
    assert outcome.ok
    assert 0.0 <= outcome.run_s < 5.0


def test_a_kind_without_a_job_is_a_bad_message(perform: Callable[..., Outcome]) -> None:
    assert cause_of(perform(succeed, kind="video")) is Cause.BAD_MESSAGE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3))
def test_running_a_job_never_raises(perform: Callable[..., Outcome], payload: dict[str, object]) -> None:
    outcome = perform(succeed, payload=payload)
    assert outcome.ok or cause_of(outcome) is Cause.BAD_MESSAGE


def test_a_job_needs_a_queue() -> None:
    with pytest.raises(ValueError, match="video"):
        job("video", SearchPayload)


def test_registering_keeps_the_warm_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(JOBS, "search", raising=False)

    def warm() -> None: ...

    assert job("search", SearchPayload, warm=warm)(succeed) is succeed
    assert JOBS.pop("search") == Job("search", SearchPayload, succeed, warm)
