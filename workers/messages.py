"""The messages on the queue: requests and their outcomes. Versioned JSON, validated.

Invariants:
- Bytes never travel in messages; images are `BlobRef`s.
- A request carries its absolute deadline, by the clock of the process that reads it: a worker gets it as a
  duration from Redis (`workers.broker.claims`).
- A request ends in exactly one visible `Outcome`: a `Success`, or a `Failure` with a cause that decides the
  fault.
- Every message can be encoded as UTF-8 JSON: no lone surrogates, no NaN.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    field_validator,
    model_validator,
)

from workers.errors import BlobMissing, Cause, Fault, JobError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def valid_unicode(text: str) -> str:
    """`text` with lone surrogates (JSON escapes can contain them) paired or replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _storable(value: JsonValue) -> JsonValue:
    """`value` without lone surrogates, and with None for NaN and infinity."""
    if isinstance(value, str):
        return valid_unicode(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {valid_unicode(name): _storable(item) for name, item in value.items()}
    return value


Text = Annotated[str, AfterValidator(valid_unicode)]
Details = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class Message(BaseModel):
    """Strict, immutable base class of all messages."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Priority = Literal[0, 3, 6]
HIGH: Priority = 0  # somebody waits for it: an interactive document, the edit of an image
NORMAL: Priority = 3  # training
LOW: Priority = 6  # batch evaluation


def raised(priority: Priority) -> Priority:
    """The next higher priority, for a request on which others of its document wait."""
    return NORMAL if priority == LOW else HIGH


class BlobRef(Message):
    """An image in the blob store, by the SHA-256 of its bytes. Sizes in bytes and pixels."""

    sha256: Sha256
    media_type: Literal["image/png", "image/jpeg", "image/webp"]
    size: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Request(Message):
    """A request for one job of a tool or judge.

    `kind`: the job, and the queue of the same name (`workers.queues`). `payload`: validated by the job's
    model. `deadline`: Unix seconds at which the client stops waiting. `limit_s`: how long the job may run
    from its start; None: until the deadline. `owner`: id of the rollout or evaluation item that waits for it.
    `priority`: the level of its queue, `HIGH` first. `traceparent`: W3C trace context of the client, or "".
    """

    version: Literal[2] = 2
    request_id: str = Field(min_length=1, max_length=128)
    kind: Text
    payload: Details
    deadline: FiniteFloat
    limit_s: Annotated[FiniteFloat, Field(gt=0)] | None = None
    seed: int = 0
    owner: Text = ""
    priority: Priority = NORMAL
    traceparent: Annotated[str, Field(max_length=128)] = ""

    @field_validator("version", mode="before")
    @classmethod
    def _same_version(cls, version: object) -> object:
        if version != 2:
            raise ValueError(
                f"a message of version {version}, and this program reads version 2; use one release"
            )
        return version

    @classmethod
    def make(
        cls,
        kind: str,
        payload: BaseModel,
        *,
        timeout_s: float,
        limit_s: float | None = None,
        seed: int = 0,
        owner: str = "",
        request_id: str | None = None,
        priority: Priority = NORMAL,
    ) -> Request:
        """A request with its deadline in `timeout_s` seconds. Its job may run for `limit_s` of them."""
        return cls(
            request_id=request_id or uuid.uuid4().hex,
            kind=kind,
            payload=payload.model_dump(mode="json"),
            deadline=time.time() + timeout_s,
            limit_s=limit_s,
            seed=seed,
            owner=owner,
            priority=priority,
        )

    @property
    def start_by(self) -> float:
        """Unix seconds by which a worker must start it, so that the job has all of `limit_s`."""
        return self.deadline - (self.limit_s or 0.0)

    def job_deadline(self, started: float) -> float:
        """Unix seconds until which a job that started at `started` may run."""
        return self.deadline if self.limit_s is None else min(self.deadline, started + self.limit_s)

    @property
    def key(self) -> str:
        """A hash of kind, payload and seed: equal for two requests with the same effect."""
        text = json.dumps([self.kind, self.payload, self.seed], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Success(Message):
    """A job's result. `images`: the first is the main one. `verdict`: a judge's scores. `source`: where the
    result came from.
    """

    status: Literal["success"] = "success"
    images: tuple[BlobRef, ...] = ()
    verdict: dict[str, int] | None = None
    source: Details = Field(default_factory=dict)


class Failure(Message):
    """Why a job failed. The cause decides the fault. `blob`: with BLOB_MISSING, the hash of the missing or
    damaged blob.
    """

    status: Literal["failure"] = "failure"
    cause: Cause
    detail: Text = ""
    provider: Text = ""
    blob: Sha256 | Literal[""] = ""

    @property
    def fault(self) -> Fault:
        return self.cause.fault

    @classmethod
    def of(cls, error: JobError) -> Failure:
        blob = error.sha256 if isinstance(error, BlobMissing) else ""
        return cls(cause=error.cause, detail=error.detail[:2000], provider=error.provider, blob=blob)


class Outcome(Message):
    """The one visible result of a request.

    `started`, `finished`: Unix seconds by the worker's clock (0: never started). `waited_s`: how long of that
    the job waited for other jobs or processes. `attempt`: how often a worker had claimed the request then.
    """

    version: Literal[1] = 1
    request_id: Text
    kind: Text
    result: Annotated[Success | Failure, Field(discriminator="status")]
    worker: Text = ""
    started: FiniteFloat = 0.0
    finished: FiniteFloat = 0.0
    waited_s: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    attempt: int = 0

    @model_validator(mode="after")
    def _ordered(self) -> Outcome:
        if self.started and self.finished and self.finished < self.started:
            raise ValueError("finished is before started")
        return self

    @property
    def ok(self) -> bool:
        return isinstance(self.result, Success)

    @property
    def run_s(self) -> float:
        """Seconds that the job ran, without waiting; 0 when no worker started it."""
        ran = self.finished - self.started - self.waited_s if self.started and self.finished else 0.0
        return max(0.0, ran)

    @classmethod
    def failed(cls, request: Request, cause: Cause, detail: str = "", *, provider: str = "") -> Outcome:
        """A failure that no worker reported (deadline, cancellation, invalid tag)."""
        failure = Failure(cause=cause, detail=detail[:2000], provider=provider)
        return cls(request_id=request.request_id, kind=request.kind, result=failure)


# Payloads of the four tools. Those of the judges are in `rewards.judges`.


class SearchPayload(Message):
    query: str = Field(min_length=1, max_length=2000)


class DiffusionPayload(Message):
    prompt: str = Field(min_length=1, max_length=8000)


class CodePayload(Message):
    code: str = Field(min_length=1, max_length=100_000)


class EditPayload(Message):
    prompt: str = Field(min_length=1, max_length=8000)
    image: BlobRef
