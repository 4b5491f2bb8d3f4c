"""The registry of jobs, and how one job runs: request in, outcome out. Independent of Celery.

A package registers jobs with `@job(kind, Payload)` in a module named by the entry-point group `llmi.jobs`.

Invariants:
- A job returns a `Success` or raises a `JobError`. Any other exception becomes `Cause.INTERNAL`.
- `run` never raises.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from workers.errors import Cause, ConfigError, InfrastructureFault, JobError
from workers.messages import Failure, Outcome, Request, Success
from workers.queues import QUEUES
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)
ENTRY_POINTS = "llmi.jobs"


@dataclass(frozen=True)
class JobContext:
    """What a running job gets besides its payload.

    `started`: Unix seconds. `cancelled`: returns at once whether the request was cancelled, for jobs that
    can stop early. `waits`: the job appends the seconds that it waited for other jobs or processes.
    """

    request: Request
    blobs: BlobStore
    started: float = field(default_factory=time.time)
    cancelled: Callable[[], bool] = lambda: False
    waits: list[float] = field(default_factory=list)

    @property
    def deadline(self) -> float:
        """Unix seconds until which the job may run; its time limit counts from its start."""
        return self.request.job_deadline(self.started)

    @property
    def remaining_s(self) -> float:
        """Seconds that the job may still run; negative after the deadline."""
        return self.deadline - time.time()


@dataclass(frozen=True)
class Job:
    """One kind of job.

    `warm`: loads what a process needs once (a pipeline, the sandbox's zygote), before its first request.
    `provider`: returns the name of the outside service that the job calls under the current configuration, ""
    for none. `holds_model`: returns whether the process keeps a model under the current configuration; None:
    decided by its queue.
    """

    kind: str
    payload: type[BaseModel]
    call: Callable[[Any, JobContext], Success]
    warm: Callable[[], None] | None = None
    provider: Callable[[], str] | None = None
    holds_model: Callable[[], bool] | None = None


JOBS: dict[str, Job] = {}


def job(
    kind: str,
    payload: type[BaseModel],
    *,
    warm: Callable[[], None] | None = None,
    provider: Callable[[], str] | None = None,
    holds_model: Callable[[], bool] | None = None,
) -> Callable[[Callable[[Any, JobContext], Success]], Callable[[Any, JobContext], Success]]:
    """Register the decorated function as the job of `kind`, which must be in the queue table."""
    if kind not in QUEUES:
        raise ConfigError(
            f"job {kind!r} has no queue of its name; register a QueueSpec in the entry points llmi.queues"
        )

    def register(call: Callable[[Any, JobContext], Success]) -> Callable[[Any, JobContext], Success]:
        JOBS[kind] = Job(kind, payload, call, warm, provider, holds_model)
        return call

    return register


def load_jobs() -> dict[str, Job]:
    """Import every module of the entry-point group, and those that define a queue, so that all jobs are
    registered.
    """
    for point in entry_points(group=ENTRY_POINTS):
        point.load()
    list(QUEUES)
    return JOBS


def provider_of(kind: str) -> str:
    """The outside service that jobs of `kind` call, "" for none."""
    entry = JOBS.get(kind)
    return entry.provider() if entry is not None and entry.provider is not None else ""


def holds_model(kind: str) -> bool:
    """Whether a process that serves `kind` keeps a model, which takes minutes to load: as its job says, else
    when its queue needs a GPU and no outside service does the work.
    """
    entry = JOBS.get(kind)
    if entry is not None and entry.holds_model is not None:
        return entry.holds_model()
    return kind in QUEUES and QUEUES[kind].resource == "gpu" and not provider_of(kind)


def keeps_model(queues: Iterable[str]) -> bool:
    """Whether a process of a worker of `queues` keeps a model. Then no job in it is killed, of any queue: the
    next job would wait until the model is loaded again.
    """
    return any(holds_model(queue) for queue in queues)


def worker_id() -> str:
    """Host and process id of this process, as outcomes and attempts name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run(request: Request, blobs: BlobStore, cancelled: Callable[[], bool] = lambda: False) -> Outcome:
    """Run one request and return its outcome. Never raises. A request past its start deadline is not run."""
    started, clock = time.time(), time.monotonic()
    waits: list[float] = []
    result: Success | Failure
    try:
        entry = JOBS.get(request.kind)
        if entry is None:
            raise InfrastructureFault(Cause.BAD_MESSAGE, f"no job of kind {request.kind!r} in this worker")
        if started >= request.start_by:
            raise InfrastructureFault(Cause.TIMEOUT, "it waited in its queue until its start deadline")
        try:
            payload = entry.payload.model_validate(request.payload)
        except ValidationError as error:
            raise InfrastructureFault(Cause.BAD_MESSAGE, f"payload: {error.errors()[0]['msg']}") from error
        result = entry.call(payload, JobContext(request, blobs, started, cancelled, waits))
    except JobError as error:
        result = Failure.of(error)
    except Exception as error:  # a bug in a job is an infrastructure failure, and the rollout waits for it
        logger.exception("job %s of kind %s failed", request.request_id, request.kind)
        result = Failure(cause=Cause.INTERNAL, detail=f"{type(error).__name__}: {error}"[:2000])
    return Outcome(
        request_id=request.request_id,
        kind=request.kind,
        result=result,
        worker=worker_id(),
        started=started,
        finished=started + time.monotonic() - clock,  # unaffected by changes of the machine's clock
        waited_s=sum(waits),
    )
