"""Which of Redis' errors pass by waiting, and waiting for them.

Redis that is away raises where a connection is made or used; one that is there, but has no memory, no disk,
no replica or no time, answers each command with an error. Invariant: neither is taken for the fault of a
request.
"""

from __future__ import annotations

import tenacity
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

RECONNECT_S = 60.0  # a restart of Redis is waited for
_AWAY = (ConnectionError, TimeoutError, OSError)
_REFUSED = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)
_CODES = ("MISCONF", "NOREPLICAS", "BUSY ", "LOADING")  # redis-py has no classes for them


def passes(error: BaseException) -> bool:
    """Whether Redis may well answer the same command later."""
    if isinstance(error, ResponseError) and not isinstance(error, _REFUSED):
        return str(error).startswith(_CODES)
    return isinstance(error, (*_AWAY, *_REFUSED))


# Not redis-py's own retries: its pool connects before they begin, and fails at once where Redis is down.
once_redis_serves = tenacity.retry(
    retry=tenacity.retry_if_exception(passes),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=1.0),
    stop=tenacity.stop_after_delay(RECONNECT_S),
    reraise=True,
)
