"""Typed failures: what failed, and whether it counts against the document.

Invariants:
- Every failure has one `Cause`, and the cause alone decides the `Fault`.
- An infrastructure failure is never turned into a number.

Raise `ModelFault` or `InfrastructureFault` where the cause is known. Any other exception of a job becomes
`Cause.INTERNAL`.
"""

from __future__ import annotations

from enum import StrEnum

STORE = "blobs"  # the provider named by failures of the blob store


class Fault(StrEnum):
    """The fault of a failure: `model` counts against the document, `infrastructure` masks the sample."""

    MODEL = "model"
    INFRASTRUCTURE = "infrastructure"


class Cause(StrEnum):
    """Why a request failed. The first block is the model's fault, the second infrastructure's."""

    TAG_INVALID = "tag_invalid"  # the tag does not parse
    BAD_PARAMS = "bad_params"  # impossible parameters (a later image, an empty query)
    INPUT_FAILED = "input_failed"  # an edit of an image that failed by the model's fault
    CODE_RAISED = "code_raised"  # the code raised an exception
    CODE_LIMIT = "code_limit"  # the code exceeded its CPU, memory, time or output limit
    CODE_BUDGET = "code_budget"  # the document's code has used its budget of seconds
    NO_FIGURE = "no_figure"  # the code drew no figure
    GLYPH_MISSING = "glyph_missing"  # the figure has characters that no installed font has
    PROMPT_REFUSED = "prompt_refused"  # a provider refused the prompt, or a judge the document
    NO_HIT = "no_hit"  # a search without a usable result

    WORKER_LOST = "worker_lost"
    TIMEOUT = "timeout"  # the request's deadline passed
    ROLLOUT_TIMEOUT = "rollout_timeout"  # the rollout's own time passed, not that of a request
    QUOTA = "quota"  # 429 or an exhausted plan
    AUTH = "auth"  # 401, 403, missing key
    PROVIDER_DOWN = "provider_down"  # 5xx, refused connection, network time-out
    HOST_DOWN = "host_down"  # like provider_down, for a host named in an answer, such as an image's
    BAD_ANSWER = "bad_answer"  # the provider answered with something unreadable
    VERDICT_UNREADABLE = "verdict_unreadable"  # a judge answered without scores from 1 to 5
    BLOB_MISSING = "blob_missing"
    BAD_MESSAGE = "bad_message"  # unknown kind or version, or a payload that does not validate
    SANDBOX = "sandbox"  # the sandbox itself failed
    INPUT_UNAVAILABLE = "input_unavailable"  # an edit of an image that failed by infrastructure's fault
    CANCELLED = "cancelled"
    INTERNAL = "internal"  # a bug in this program

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
    """The configuration or environment is wrong. The message names the field and what to do."""


class JobError(Exception):
    """A job's typed failure, which becomes a `Failure` outcome. `retry_after_s`: seconds after which the
    provider asked to retry.
    """

    def __init__(self, cause: Cause, detail: str, *, provider: str = "", retry_after_s: float | None = None):
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail
        self.provider = provider
        self.retry_after_s = retry_after_s


class ModelFault(JobError):
    """A failure that the model caused. Counts against the document; never retried."""

    def __init__(self, cause: Cause, detail: str, *, provider: str = ""):
        if cause.fault is not Fault.MODEL:
            raise ValueError(f"{cause} is not the model's fault")
        super().__init__(cause, detail, provider=provider)


class InfrastructureFault(JobError):
    """A failure of this program or a provider. Masks the sample; retried within the request's deadline."""

    def __init__(self, cause: Cause, detail: str, *, provider: str = "", retry_after_s: float | None = None):
        if cause.fault is not Fault.INFRASTRUCTURE:
            raise ValueError(f"{cause} is not infrastructure's fault")
        super().__init__(cause, detail, provider=provider, retry_after_s=retry_after_s)


class BlobMissing(InfrastructureFault):
    """The blob `sha256` is missing or damaged. Its request can be run again."""

    def __init__(self, sha256: str, detail: str):
        super().__init__(Cause.BLOB_MISSING, detail)
        self.sha256 = sha256
