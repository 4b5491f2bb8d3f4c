"""Typed failures: what went wrong and whose fault it is.

Invariants: every failure has one `Cause`; the cause alone decides the fault; a failure of infrastructure is
never turned into a number. Code raises `ModelFault` or `InfrastructureFault` at the boundary where the
cause is known; anything else that escapes a job is `Cause.INTERNAL`.
"""

from __future__ import annotations

from enum import StrEnum

STORE = "blobs"  # the blob store, where a failure names who failed


class Fault(StrEnum):
    """Who is to blame: the model counts against the document, infrastructure masks the sample."""

    MODEL = "model"
    INFRASTRUCTURE = "infrastructure"


class Cause(StrEnum):
    """Why a request failed. The first block is the model's, the second infrastructure's."""

    TAG_INVALID = "tag_invalid"  # the tag does not parse
    BAD_PARAMS = "bad_params"  # parses, but asks for something impossible (index ahead, empty query)
    INPUT_FAILED = "input_failed"  # an edit of an image that itself failed by the model's fault
    CODE_RAISED = "code_raised"  # the chart code raised
    CODE_LIMIT = "code_limit"  # the chart code ran over its CPU, memory, time or output limit
    CODE_BUDGET = "code_budget"  # the code of the document has used its budget of seconds
    NO_FIGURE = "no_figure"  # the chart code drew nothing
    GLYPH_MISSING = "glyph_missing"  # the chart has characters that no installed font has
    PROMPT_REFUSED = "prompt_refused"  # a provider refused the prompt, or a judge the document
    NO_HIT = "no_hit"  # a search without a usable result

    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"  # the request's deadline passed
    QUOTA = "quota"  # 429 or an exhausted plan
    AUTH = "auth"  # 401, 403, missing key
    PROVIDER_DOWN = "provider_down"  # 5xx, refused connection, network time-out
    HOST_DOWN = "host_down"  # as provider_down, of a host that an answer named, such as a picture's
    BAD_ANSWER = "bad_answer"  # the provider answered with something unreadable
    VERDICT_UNREADABLE = "verdict_unreadable"  # a judge answered, but not with scores from 1 to 5
    BLOB_MISSING = "blob_missing"
    BAD_MESSAGE = "bad_message"  # unknown kind or version, or a payload that does not validate
    SANDBOX = "sandbox"  # the jail itself failed
    INPUT_UNAVAILABLE = "input_unavailable"  # an edit of an image that failed by infrastructure's fault
    CANCELLED = "cancelled"
    INTERNAL = "internal"  # a bug of ours

    @property
    def fault(self) -> Fault:
        return Fault.MODEL if self in _MODEL_CAUSES else Fault.INFRASTRUCTURE


_MODEL_CAUSES = frozenset(
    {
        Cause.TAG_INVALID,
        Cause.BAD_PARAMS,
        Cause.INPUT_FAILED,
        Cause.CODE_RAISED,
        Cause.CODE_LIMIT,
        Cause.CODE_BUDGET,
        Cause.NO_FIGURE,
        Cause.GLYPH_MISSING,
        Cause.PROMPT_REFUSED,
        Cause.NO_HIT,
    }
)


class ConfigError(ValueError):
    """The user's configuration or environment is wrong. The message names the field and the cure."""


class JobError(Exception):
    """A job's typed failure; becomes a `Failure` outcome. `retry_after_s` is a provider's own wish, in
    seconds.
    """

    def __init__(self, cause: Cause, detail: str, *, provider: str = "", retry_after_s: float | None = None):
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.provider = provider
        self.retry_after_s = retry_after_s


class ModelFault(JobError):
    """The model asked for something that cannot be done. Counts against the document; never retried."""

    def __init__(self, cause: Cause, detail: str, *, provider: str = ""):
        if cause.fault is not Fault.MODEL:
            raise ValueError(f"{cause} is not the model's fault")
        super().__init__(cause, detail, provider=provider)


class InfrastructureFault(JobError):
    """Something of ours or of a provider failed. Masks the sample; retried within the request's deadline."""

    def __init__(self, cause: Cause, detail: str, *, provider: str = "", retry_after_s: float | None = None):
        if cause.fault is not Fault.INFRASTRUCTURE:
            raise ValueError(f"{cause} is not infrastructure's fault")
        super().__init__(cause, detail, provider=provider, retry_after_s=retry_after_s)


class BlobMissing(InfrastructureFault):
    """The blob `sha256` is gone or damaged. Whoever needs it can have it made again."""

    def __init__(self, sha256: str, detail: str):
        super().__init__(Cause.BLOB_MISSING, detail)
        self.sha256 = sha256
