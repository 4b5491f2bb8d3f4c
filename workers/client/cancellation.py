"""Notifies workers of cancelled requests, so that they end the jobs. Celery's broadcast blocks: it runs in a
thread, for many requests at a time.

Invariant: best effort. A cancellation holds by its stored outcome; this only frees the worker sooner, and
only where the job has a process of its own (prefork) that keeps no model. Jobs that poll for their
cancellation (`workers.broker.cancellation`) do not need it. `workers.celery_app.cancel_command` is the other
side.
"""

from __future__ import annotations

import asyncio
import logging

from kombu.exceptions import OperationalError

from workers.broker.cancellation import CANCEL_COMMAND
from workers.settings import QueueSettings

logger = logging.getLogger(__name__)
TIMEOUT_S = 5.0


class Canceller:
    """`run` is one task of the client."""

    def __init__(self, settings: QueueSettings):
        self._settings = settings
        self._ids: list[str] = []
        self._wake = asyncio.Event()

    def notify(self, request_id: str) -> None:
        """Notify all workers soon. Returns at once."""
        self._ids.append(request_id)
        self._wake.set()

    async def run(self) -> None:
        """Broadcast until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            ids, self._ids = self._ids, []
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await asyncio.to_thread(self._broadcast, ids)
            except (OperationalError, OSError, TimeoutError) as error:
                logger.warning("workers not notified of %d cancellations: %s", len(ids), error)

    def _broadcast(self, ids: list[str]) -> None:
        from celery import Celery

        options = {"socket_timeout": TIMEOUT_S / 2, "socket_connect_timeout": TIMEOUT_S / 2}
        with Celery("llmi-canceller", broker=self._settings.url, set_as_current=False) as app:
            app.conf.update(broker_url=self._settings.url, broker_transport_options=options)
            app.control.broadcast(CANCEL_COMMAND, arguments={"ids": ids})
