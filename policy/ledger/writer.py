"""Append entries to this process's files of the run ledger.

Invariants:
- one entry is one line of a file that only this process writes (`policy.ledger.append_log`);
- the times that one writer gives only grow;
- while a writer is open, no other process can resume the run.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from policy.document import Document, Task
from policy.ledger import entries
from policy.ledger.append_log import AppendLog
from policy.ledger.entries import LEDGER, Entry, Span, State
from policy.ledger.run_lock import shared
from policy.scoring import Score
from workers.messages import Outcome, Request


class LedgerWriter:
    """Appends entries to files of this process. Thread-safe.

    `run`: the folder of the run. `role`: the first part of the file name, such as `rollout` or `trainer`.
    """

    def __init__(self, run: Path, role: str):
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(shared(run))
        folder = run / LEDGER
        folder.mkdir(exist_ok=True)
        self._log = AppendLog(folder, f"{role}-{os.getpid()}")
        self._lock = threading.Lock()
        self._last = 0.0  # time of the last entry

    def append(self, entry: Entry) -> None:
        """Append an entry. Raises `OSError` when too much is unwritten because the disk is full."""
        self._log.append(entry.model_dump_json().encode() + b"\n")

    def _now(self) -> float:
        """The time, later than that of the last entry: readers merge by time, and a clock may be set back."""
        with self._lock:
            self._last = max(time.time(), math.nextafter(self._last, math.inf))
            return self._last

    def started(self, rollout_id: str, task: Task, *, step: int = 0) -> None:
        self.append(entries.Started(time=self._now(), rollout_id=rollout_id, task=task, step=step))

    def posted(self, request: Request) -> None:
        """A hook for `QueueClient(on_posted=...)`."""
        self.append(entries.Posted(time=self._now(), request=request))

    def request_ended(self, outcome: Outcome) -> None:
        """A hook for `QueueClient(on_outcome=...)`."""
        self.append(entries.RequestEnded(time=self._now(), outcome=outcome))

    def text_generated(self, rollout_id: str, segments: Sequence[Span]) -> None:
        self.append(entries.TextGenerated(time=self._now(), rollout_id=rollout_id, segments=tuple(segments)))

    def trainer_waited(self, began: float, *, step: int) -> None:
        self.append(entries.TrainerWaited(time=self._now(), began=began, step=step))

    def paused(self, providers: Sequence[str], *, since: float) -> None:
        self.append(entries.Paused(time=self._now(), providers=tuple(providers), since=since))

    def pause_ended(self) -> None:
        self.append(entries.PauseEnded(time=self._now()))

    def scored(
        self, document: Document, score: Score, *, tokens: int, versions: tuple[int, int] | None = None
    ) -> None:
        self.append(
            entries.Scored(time=self._now(), document=document, score=score, tokens=tokens, versions=versions)
        )

    def rollout_ended(self, rollout_id: str, state: State, *, reason: str = "", step: int = 0) -> None:
        self.append(
            entries.RolloutEnded(
                time=self._now(), rollout_id=rollout_id, state=state, reason=reason[:2000], step=step
            )
        )

    def rollout_raised(self, rollout_id: str, reason: str) -> None:
        self.append(entries.RolloutRaised(time=self._now(), rollout_id=rollout_id, reason=reason[:2000]))

    def group_failed(self, uid: str, *, step: int) -> None:
        self.append(entries.GroupFailed(time=self._now(), uid=uid, step=step))

    def group_dropped(
        self, uid: str, *, step: int, reason: Literal["too_few", "no_signal"] = "too_few"
    ) -> None:
        self.append(entries.GroupDropped(time=self._now(), uid=uid, step=step, reason=reason))

    def checkpoint_saved(self, *, step: int, held: tuple[str, ...] = ()) -> None:
        self.append(entries.CheckpointSaved(time=self._now(), step=step, held=held))

    def finished(self) -> None:
        self.append(entries.Finished(time=self._now()))

    def close(self) -> None:
        """Sync and close the files."""
        self._log.close()
        self._stack.close()
