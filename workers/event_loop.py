"""One event loop per process, in a daemon thread. Threads of jobs wait for coroutines that run on it.

Invariants:
- `run` returns at most `BACKSTOP_S` after its deadline, even when the work ignores its cancellation or the
  loop is busy.
- The work of a request that is cancelled or late is cancelled.
- A forked process starts a loop of its own: the thread of its parent's loop does not exist there.
- A `PerLoop` resource is closed with its loop, also on a loop of `asyncio.run`.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from workers.errors import Cause, InfrastructureFault

POLL_S = 0.25  # seconds between two checks for a cancellation
BACKSTOP_S = 1.0  # so that work that keeps the deadline itself, and names the late service, raises first
_STOP_S = 5.0  # for resources to close
T = TypeVar("T")

_lock = threading.Lock()
_loops: dict[int, tuple[asyncio.AbstractEventLoop, threading.Thread]] = {}  # by process id


def process_loop() -> asyncio.AbstractEventLoop:
    """This process's loop, started at the first call, and again when a coroutine that raised `SystemExit` has
    ended it.
    """
    with _lock:
        process = os.getpid()
        if process not in _loops or not _loops[process][1].is_alive():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="event-loop", daemon=True)
            thread.start()
            _loops[process] = loop, thread
        return _loops[process][0]


@atexit.register
def stop() -> None:
    """Cancel what runs on this process's loop, close its resources and end its thread; `run` then starts
    another. Blocks for some seconds at most.
    """
    with _lock:
        loop, thread = _loops.pop(os.getpid(), (None, None))
    if loop is None or thread is None or not thread.is_alive():
        return
    with contextlib.suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(_close(loop), loop).result(_STOP_S)
    loop.call_soon_threadsafe(loop.stop)


async def _close(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()


def run(work: Coroutine[Any, Any, T], deadline: float, cancelled: Callable[[], bool] = lambda: False) -> T:
    """Run `work` on this process's loop, from a job's thread, and return its result.

    deadline: Unix seconds.
    cancelled: returns whether the request was cancelled. It is called every `POLL_S` and must not block.

    Raises what the work raises, `InfrastructureFault(TIMEOUT)` after the deadline and
    `InfrastructureFault(CANCELLED)` for a cancelled request.
    """
    end = time.monotonic() + deadline - time.time() + BACKSTOP_S
    future = asyncio.run_coroutine_threadsafe(work, process_loop())
    try:
        while not _done(future, min(POLL_S, end - time.monotonic())):
            if cancelled():
                raise InfrastructureFault(Cause.CANCELLED, "the request was cancelled")
            if time.monotonic() >= end:
                raise InfrastructureFault(Cause.TIMEOUT, "the deadline passed before the job was done")
    finally:
        future.cancel()  # no effect when it is done
    try:
        return future.result()
    except TimeoutError as error:
        raise InfrastructureFault(Cause.TIMEOUT, "the deadline passed before the job was done") from error


def _done(future: concurrent.futures.Future[Any], wait_s: float) -> bool:
    return bool(concurrent.futures.wait([future], max(0.0, wait_s)).done)


class PerLoop(Generic[T]):
    """A resource that belongs to an event loop: connections, a resolver. Each loop has its own.

    It is made at the first `get` on the loop, and closed when the loop shuts down its
    asynchronous generators, as `asyncio.run` and `stop` do.

    make: called on the loop.
    close: awaited on the loop.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]):
        self._make = make
        self._close = close
        # Each generator holds the resource of its loop.
        self._held: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[T]]] = {}

    async def get(self) -> T:
        """The resource of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._held:
            holding = self._holding(loop)
            # Nothing between the check and this line waits, so that a loop never makes two.
            self._held[loop] = (await anext(holding), holding)
        return self._held[loop][0]

    async def _holding(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[T]:
        resource = self._make()
        try:
            yield resource
        finally:
            del self._held[loop]
            await self._close(resource)
