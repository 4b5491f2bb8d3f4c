"""Base class of bootsteps that run something on the consumer's event loop at intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps


class TimerStep(bootsteps.StartStopStep):
    """A bootstep with one timer, which stops with the connection and is started again with the next."""

    requires: tuple[Any, ...] = ("celery.worker.consumer.tasks:Tasks",)
    _timer: Any = None

    def repeat(self, consumer: Any, every_s: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Call `call(*arguments)` every `every_s` seconds."""
        self._timer = consumer.timer.call_repeatedly(every_s, call, arguments)

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
