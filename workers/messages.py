"""The messages on the queue: requests out, outcomes back. JSON, validated, versioned.

Invariants: bytes never travel in messages (images are `BlobRef`s); a request carries its own absolute
deadline; a request ends in exactly one visible `Outcome`, a `Success` or a `Failure` whose cause says whose
fault it is; what a message holds, JSON in UTF-8 can hold (no half characters, no NaN), whoever wrote it.
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
    model_validator,
)

from workers.errors import BlobMissing, Cause, Fault, JobError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def valid_unicode(text: str) -> str:
    """`text`, its half characters (lone surrogates, which escapes in JSON can spell) paired or replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _storable(value: JsonValue) -> JsonValue:
    """`value` as JSON in UTF-8 can hold it: whole characters, and None for numbers that are none."""
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
    """Strict, immutable base of everything that travels."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BlobRef(Message):
    """An image in the blob store, by the SHA-256 of its bytes. Sizes in bytes and pixels."""

    sha256: Sha256
    media_type: Literal["image/png", "image/jpeg", "image/webp"]
    size: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Request(Message):
    """One tool or judge job.

    `kind` names the job and so its queue (`workers.queues`); `payload` is validated by the job's own model.
    `deadline` (Unix seconds) is when its poster stops waiting. `limit_s` is how long the job may run once a
    worker has begun it; None: until the deadline. `owner` is the rollout (or evaluation item) that waits for
    it.
    """

    version: Literal[1] = 1
    request_id: str = Field(min_length=1, max_length=128)
    kind: Text
    payload: Details
    deadline: FiniteFloat
    limit_s: Annotated[FiniteFloat, Field(gt=0)] | None = None
    seed: int = 0
    owner: Text = ""

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
    ) -> Request:
        """A request that expires `timeout_s` seconds from now, of which its job may run for `limit_s`."""
        return cls(
            request_id=request_id or uuid.uuid4().hex,
            kind=kind,
            payload=payload.model_dump(mode="json"),
            deadline=time.time() + timeout_s,
            limit_s=limit_s,
            seed=seed,
            owner=owner,
        )

    @property
    def start_by(self) -> float:
        """Unix seconds until which a worker may begin it: then its job has all of `limit_s`."""
        return self.deadline - (self.limit_s or 0.0)

    def job_deadline(self, started: float) -> float:
        """Unix seconds until which a job that began at `started` may run."""
        return self.deadline if self.limit_s is None else min(self.deadline, started + self.limit_s)

    @property
    def key(self) -> str:
        """Same kind, payload and seed, same key: what makes two requests ask for the same effect."""
        text = json.dumps([self.kind, self.payload, self.seed], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class Success(Message):
    """What a job made: images (the first is *the* image), or a judge's verdict; `source` says where it came
    from.
    """

    status: Literal["success"] = "success"
    images: tuple[BlobRef, ...] = ()
    verdict: dict[str, int] | None = None
    source: Details = Field(default_factory=dict)


class Failure(Message):
    """Why a job made nothing. The fault follows from the cause. `blob`: with BLOB_MISSING, the one that is
    gone or damaged.
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
    """The one visible end of a request. `started` and `finished` are Unix seconds at the worker (0: never
    started); `waited_s`: the part of the time between in which other jobs or processes kept it waiting.
    """

    version: Literal[1] = 1
    request_id: Text
    kind: Text
    result: Annotated[Success | Failure, Field(discriminator="status")]
    worker: Text = ""
    started: FiniteFloat = 0.0
    finished: FiniteFloat = 0.0
    waited_s: Annotated[FiniteFloat, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Outcome:
        if self.started and self.finished and self.finished < self.started:
            raise ValueError("finished lies before started")
        return self

    @property
    def ok(self) -> bool:
        return isinstance(self.result, Success)

    @property
    def run_s(self) -> float:
        """How long the job ran, without waiting for its queue or for others; 0 when no worker began it."""
        ran = self.finished - self.started - self.waited_s if self.started and self.finished else 0.0
        return max(0.0, ran)

    @classmethod
    def failed(cls, request: Request, cause: Cause, detail: str = "", *, provider: str = "") -> Outcome:
        """A failure known without a worker's answer (deadline, cancellation, invalid tag)."""
        failure = Failure(cause=cause, detail=detail[:2000], provider=provider)
        return cls(request_id=request.request_id, kind=request.kind, result=failure)


# What the four tools are asked for. The judges' payloads live in `rewards.judges`.


class SearchPayload(Message):
    query: str = Field(min_length=1, max_length=2000)


class DiffusionPayload(Message):
    prompt: str = Field(min_length=1, max_length=8000)


class CodePayload(Message):
    code: str = Field(min_length=1, max_length=100_000)


class EditPayload(Message):
    prompt: str = Field(min_length=1, max_length=8000)
    image: BlobRef
