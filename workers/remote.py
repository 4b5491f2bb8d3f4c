"""Asks an fsspec file system, with a deadline where it is reached over the network (S3 and its like).

Left alone, s3fs waits for minutes on a server that says nothing, and a worker's slot with it. Invariant: a
call ends within `ANSWER_S`, but for a local folder and for file systems that block by themselves (SFTP).
"""

from __future__ import annotations

from typing import Any

from fsspec.asyn import sync

ANSWER_S = 60.0


def ask(fs: Any, method: str, *arguments: Any) -> Any:
    """What `fs.<method>(*arguments)` returns. Raises what it raises, and `TimeoutError`."""
    if not fs.async_impl:
        return getattr(fs, method)(*arguments)
    return sync(fs.loop, getattr(fs, f"_{method}"), *arguments, timeout=ANSWER_S)
