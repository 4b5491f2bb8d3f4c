"""Asks an fsspec file system, with a deadline where it is reached over the network (S3 and its like), and
says whose fault it is when that fails.

Left alone, s3fs waits for minutes on a server that says nothing, and a worker's slot with it. Invariant: a
call ends within `ANSWER_S`, but for a local folder and for file systems that block by themselves (SFTP).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fsspec.asyn import sync

from workers.errors import STORE, Cause, InfrastructureFault

ANSWER_S = 60.0


def call(fs: Any, method: str, *arguments: Any) -> Any:
    """What `fs.<method>(*arguments)` returns. Raises what it raises, and `TimeoutError`."""
    if not fs.async_impl:
        return getattr(fs, method)(*arguments)
    return sync(fs.loop, getattr(fs, f"_{method}"), *arguments, timeout=ANSWER_S)


@contextlib.contextmanager
def store_errors(url: str, failure: str, *, passing: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turns what a store raises in this block into `InfrastructureFault(PROVIDER_DOWN)`: "<url> <failure>:
    its words". `passing`: what is an answer, and not a failure.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:  # each kind of store has errors of its own; botocore's are no OSErrors
        detail = f"{url} {failure}: {str(error) or type(error).__name__}"
        raise InfrastructureFault(Cause.PROVIDER_DOWN, detail, provider=STORE) from error
