"""A job's end is always an outcome, whatever the job, the payload or the clock does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.blobs import BlobStore
from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.jobs import JOBS, Job, JobContext, job, run
from workers.messages import Failure, Outcome, Request, SearchPayload, Success

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


def test_a_success_says_who_made_it_and_when(perform: Callable[..., Outcome]) -> None:
    before = time.time()
    outcome = perform(succeed)
    assert isinstance(outcome.result, Success)
    assert outcome.result.source["query"] == "owl"
    assert outcome.result.source["remaining_s"] == pytest.approx(60.0, abs=5.0)
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
def test_what_a_job_raises_becomes_its_cause(
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


def test_a_kind_without_a_job_is_a_bad_message(perform: Callable[..., Outcome]) -> None:
    assert cause_of(perform(succeed, kind="video")) is Cause.BAD_MESSAGE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3))
def test_no_payload_makes_it_raise(perform: Callable[..., Outcome], payload: dict[str, object]) -> None:
    outcome = perform(succeed, payload=payload)
    assert outcome.ok or cause_of(outcome) is Cause.BAD_MESSAGE


def test_a_job_needs_a_queue() -> None:
    with pytest.raises(ValueError, match="video"):
        job("video", SearchPayload)


def test_registering_keeps_what_to_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(JOBS, "search", raising=False)

    def warm() -> None: ...

    assert job("search", SearchPayload, warm=warm)(succeed) is succeed
    assert JOBS.pop("search") == Job("search", SearchPayload, succeed, warm)
