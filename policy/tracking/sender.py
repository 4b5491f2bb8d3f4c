"""A thread that sends the metrics of a run to one tracker.

Invariants:
- `put` and `metrics` never block, so a slow or lost tracker delays no step;
- a tracker that fails ends nothing: what it did not take is counted, and the first failure of each outage is
  logged;
- every row of `put` is sent, lost, or waits;
- rows arrive in the order of `put`, all from one thread, because MLflow keeps its run in a variable of the
  thread.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger(__name__)
MOST_ROWS = 1000  # that wait for a tracker
RETRY_S = 30.0  # between two attempts to connect
CLOSE_S = 60.0  # for what waits at the end of a run


@dataclass(frozen=True)
class Row:
    """The metrics of a step."""

    step: int
    data: Mapping[str, float]


class Tracker(Protocol):
    """A connected tracker. Every method may raise anything."""

    def send(self, row: Row) -> None: ...

    def finish(self, failed: bool) -> None: ...


class Sender:
    """Sends to the tracker `name` until `end`.

    `connect`: makes the connected tracker, in the thread; it is tried again until it succeeds, and rows wait
    meanwhile. `retry_s`: seconds between two attempts.
    """

    def __init__(self, name: str, connect: Callable[[], Tracker], *, retry_s: float = RETRY_S):
        self.name = name
        self._connect = connect
        self._retry_s = retry_s
        self._rows: queue.Queue[Row | None] = queue.Queue(MOST_ROWS)
        self._closing = threading.Event()
        self._failed = False
        self._accepted, self._full = 0, 0  # rows with and without room; written by the caller's thread
        self._sent, self._refused = 0, 0  # written by the sender's thread
        self._down = False
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> None:
        """Send a row later. When too many wait, it is lost and counted."""
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._full += 1
        else:
            self._accepted += 1

    @property
    def lost(self) -> int:
        return self._full + self._refused

    @property
    def waiting(self) -> int:
        """Rows that the tracker has not taken yet, with the one that is sent now."""
        return self._accepted - self._sent - self._refused

    def metrics(self) -> dict[str, int]:
        """Rows that the tracker did not take, and rows that wait for it."""
        return {f"trackers/{self.name}/lost": self.lost, f"trackers/{self.name}/waiting": self.waiting}

    def end(self, failed: bool) -> None:
        """Send what waits, and then finish, in the thread. `failed`: the run failed."""
        self._failed = failed
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then the thread ends when it has read what waits
            self._rows.put_nowait(None)

    def join(self, deadline: float) -> None:
        """Wait after `end` until all is sent, at most until `deadline` (monotonic seconds)."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        unsent = self.lost + self.waiting
        if self._thread.is_alive():
            logger.warning("%s did not finish in time; %d rows are lost", self.name, unsent)
        elif unsent:
            logger.warning("%s lacks %d rows; metrics.jsonl has all", self.name, unsent)

    def _run(self) -> None:
        tracker = self._connected()
        if tracker is None:
            return
        while not (self._closing.is_set() and self._rows.empty()):
            row = self._rows.get()
            if row is None:
                continue
            if self._attempt(functools.partial(tracker.send, row)):
                self._sent += 1
            else:
                self._refused += 1
        self._attempt(functools.partial(tracker.finish, self._failed))

    def _connected(self) -> Tracker | None:
        """The connected tracker; None if the run ended before."""
        made: list[Tracker] = []
        while not self._attempt(lambda: made.append(self._connect())):
            if self._closing.wait(self._retry_s):
                return None
        return made[0]

    def _attempt(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a tracker must not end a run, whatever it raises
            if not self._down:
                logger.warning(
                    "%s failed, and the run goes on: %s: %s", self.name, type(error).__name__, error
                )
            self._down = True
            return False
        self._down = False
        return True
