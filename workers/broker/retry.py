"""Which of Redis' errors pass by waiting, and waiting for them.

Redis that is away raises where a connection is made or used; one that is there, but has no memory, no disk,
no replica or no time, answers each command with an error. Invariants: neither is taken for the fault of a
request; a password or a right that is missing is not waited for; who waits says so.
"""

from __future__ import annotations

import logging
import re

import tenacity
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

logger = logging.getLogger(__name__)
TOLD_EVERY = 60  # attempts, up to a second apart
_AWAY = (ConnectionError, TimeoutError, OSError)
_REFUSED = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
# redis-py has no classes for these, and writes more in front of what came out of a pipeline.
_CODES = re.compile(r"(^|caused error: )(MISCONF|NOREPLICAS|BUSY|LOADING) ")


def is_transient(error: BaseException) -> bool:
    """Whether Redis may well answer the same command later."""
    if isinstance(error, ResponseError) and not isinstance(error, _REFUSED):
        return _CODES.search(str(error)) is not None
    denied = isinstance(error, (AuthenticationError, AuthorizationError))  # to redis-py, lost connections
    return isinstance(error, (*_AWAY, *_REFUSED)) and not denied


def _tell(state: tenacity.RetryCallState) -> None:
    if state.attempt_number % TOLD_EVERY == 1 and state.outcome is not None:
        logger.warning("Redis is waited for: %s", state.outcome.exception())


# For as long as it takes: whoever asks has nothing else to do without Redis. Not redis-py's own retries: its
# pool connects before they begin, and fails at once where Redis is down.
retry_redis = tenacity.retry(
    retry=tenacity.retry_if_exception(is_transient),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
    before_sleep=_tell,
    reraise=True,
)
