"""Temporary errors of Redis, and the retry for them.

A Redis that is down raises when a connection is made or used. One that is up but has no memory, disk, replica
or time answers each command with an error.

Invariants: neither counts as a failure of a request; a missing password or permission is not retried; the
first retry, and every `LOG_EVERY`th, is logged.
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
LOG_EVERY = 60  # attempts, up to a second apart
_DOWN = (ConnectionError, TimeoutError, OSError)
_REFUSED = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
# redis-py has no classes for these, and prefixes the error of a pipeline.
_CODES = re.compile(r"(^|caused error: )(MISCONF|NOREPLICAS|BUSY|LOADING) ")


def is_transient(error: BaseException) -> bool:
    """Whether Redis may accept the same command later."""
    if isinstance(error, ResponseError) and not isinstance(error, _REFUSED):
        return _CODES.search(str(error)) is not None
    denied = isinstance(error, (AuthenticationError, AuthorizationError))  # subclasses of ConnectionError
    return isinstance(error, (*_DOWN, *_REFUSED)) and not denied


def _log(state: tenacity.RetryCallState) -> None:
    if state.attempt_number % LOG_EVERY == 1 and state.outcome is not None:
        logger.warning("waiting for Redis: %s", state.outcome.exception())


# Retries without a limit: a worker can do nothing else without Redis. redis-py's own retries do not help: its
# pool connects before they apply, and fails at once where Redis is down.
retry_redis = tenacity.retry(
    retry=tenacity.retry_if_exception(is_transient),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
    before_sleep=_log,
    reraise=True,
)
