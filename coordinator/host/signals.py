"""SIGINT and SIGTERM during a run: the first one stops it in order, the next one kills every process.

Invariant: `Stopped` is raised in the main thread, and only while nothing is being stopped, so that a second
Ctrl-C does not interrupt the clean-up.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from coordinator.host import processes

T = TypeVar("T")


class Stopped(BaseException):
    """SIGINT or SIGTERM was received. The exit code is 128 + signal, as in a shell."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class StopSignals:
    """A context manager that installs the handlers, and restores the ones before on exit."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.stopping = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        self._before = {signum: signal.getsignal(signum) for signum in self.SIGNALS}
        self.install()
        return self

    def install(self) -> None:
        """Install the handlers again, after a library (Ray) has replaced them."""
        for signum in self.SIGNALS:
            signal.signal(signum, self._handle)

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def run(
        self,
        work: Coroutine[Any, Any, T],
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> T:
        """As `asyncio.run`; the first signal cancels `work`, and `Stopped` is raised after `work` has ended.

        An exception from a handler would be raised in any task of the loop.
        """

        async def listening() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            received: list[int] = []

            def stop(signum: int) -> None:
                if self.stopping:
                    self._handle(signum, None)
                self.stopping = True
                received.append(signum)
                task.cancel()

            for signum in self.SIGNALS:
                loop.add_signal_handler(signum, stop, signum)
            try:
                return await work
            except asyncio.CancelledError:
                if received:
                    raise Stopped(received[0]) from None
                raise
            finally:
                for signum in self.SIGNALS:
                    loop.remove_signal_handler(signum)
                self.install()

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(listening())

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.stopping:
            self.stopping = True
            raise Stopped(signum)
        processes.end_all(deadline_s=2.0)
        os._exit(128 + signum)
