"""Calls of fsspec file systems with a time limit, and their errors as infrastructure faults.

By itself s3fs waits for minutes for a server that does not answer, and would occupy a worker's slot.
Invariant: a call ends within `CALL_TIMEOUT_S`, except in a local folder and in file systems that block by
themselves (SFTP).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fsspec.asyn import sync

from workers.errors import STORE, Cause, InfrastructureFault

CALL_TIMEOUT_S = 60.0


def call(fs: Any, method: str, *arguments: Any) -> Any:
    """Return `fs.<method>(*arguments)`. Raises what that raises, and `TimeoutError`."""
    if not fs.async_impl:
        return getattr(fs, method)(*arguments)
    return sync(fs.loop, getattr(fs, f"_{method}"), *arguments, timeout=CALL_TIMEOUT_S)


@contextlib.contextmanager
def store_errors(url: str, failure: str, *, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Convert every exception of the block to `InfrastructureFault(PROVIDER_DOWN)` with the detail
    "<url> <failure>: <error>". `passing`: exceptions that are raised unchanged.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:  # each kind of store has its own errors; botocore's are not OSErrors
        detail = f"{url} {failure}: {str(error) or type(error).__name__}"
        raise InfrastructureFault(Cause.PROVIDER_DOWN, detail, provider=STORE) from error
