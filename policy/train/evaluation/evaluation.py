"""Evaluate the test files while training (`train.evaluate_every`), without ever holding up a step.

An evaluation is submitted before a step waits for its batch: in `sync` its prompts are submitted by then, and
are generated first. It is read at the end of steps, until all its documents have ended. Only after the last
step of the run it is waited for, for at most `timeout_s`.

Invariants: those of `policy.train.evaluation.schedule` and `policy.train.evaluation.documents`; every
document that has ended has its terminal state in the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Any

from policy.ledger.writer import LedgerWriter
from policy.train.evaluation.documents import Rows, submit, take_ended
from policy.train.evaluation.result import Result
from policy.train.evaluation.schedule import Schedule

logger = logging.getLogger(__name__)
POLL_S = 0.5
Metrics = dict[str, float]


class Evaluation:
    """The evaluations of a run. `samples`: of each prompt. `manager`: verl's agent loop manager."""

    def __init__(
        self, schedule: Schedule, rows: Rows, ledger: LedgerWriter, *, manager: Any, samples: int,
        timeout_s: float,
    ):  # fmt: skip
        self._schedule = schedule
        self._rows = rows
        self._ledger = ledger
        self._manager = manager
        self._samples = samples
        self._timeout_s = timeout_s
        self._open: list[str] = []
        self._result: Result | None = None
        self._due: int | None = None  # waits for the rows to be read
        self._seen = -1  # newest version for which it was decided whether to evaluate it
        self._last = -1  # version of the newest evaluation, or of the newest result

    def start(self, version: int, done: Collection[int]) -> None:
        """Before the first step. `version`: of the weights. `done`: versions with results before a resume."""
        self._last, self._seen = max(done, default=-1), version
        if self._schedule.due_at_start(version, done):
            self._due = version

    def before_batch(self, version: int) -> None:
        """Before a step waits for its batch: submit an evaluation if one is due. `version`: of the weights,
        which the step before made.
        """
        if version > self._seen:
            self._seen = version
            if self._schedule.start(version, open_=self._result is not None or self._due is not None):
                self._due = version
        self._submit_due(version)

    def collect(self, step: int) -> Metrics:
        """Read the documents that have ended. Returns the metrics of an evaluation once all have."""
        if self._result is None:
            return {}
        for ended in take_ended(self._open):
            self._open.remove(ended.uid)
            self._result.scored += ended.scored
            missing = self._samples - len(ended.scored)
            if ended.failed:
                self._result.failed += missing
                self._ledger.group_failed(ended.uid, step=step)
            else:
                self._result.masked += missing
            for rollout_id in ended.rollouts:
                self._ledger.rollout_ended(rollout_id, "evaluated", step=step)
        return self._end(step) if not self._open else {}

    def finish(self, version: int) -> list[Metrics]:
        """After the last step: wait for the open evaluation and for that of the last version, `timeout_s` for
        both together.
        """
        until = time.monotonic() + self._timeout_s
        results = [self._wait(version, until)] if self._result else []
        if self._last < version:
            self._schedule.skipped += self._due is not None and self._due < version
            self._due = version
            results.append(self._wait(version, until))
        self._rows.close()
        self._ledger.close()
        return results

    def _submit_due(self, version: int) -> None:
        if self._due is not None and self._rows.ready():
            self._submit(version)

    def _submit(self, version: int) -> None:
        self._open = submit(self._rows.take(), version, self._manager)
        self._result, self._due, self._last = Result(version), None, version
        logger.info("evaluation of version %d: %d prompts", version, len(self._open))

    def _wait(self, step: int, until: float) -> Metrics:
        """Wait for the open evaluation, or for the one that is due. `until`: of the monotonic clock."""
        while (left := until - time.monotonic()) > 0:
            self._submit_due(step)
            if metrics := self.collect(step):
                return metrics
            time.sleep(min(POLL_S, left))
        return self.collect(step) or self._give_up(step)

    def _give_up(self, step: int) -> Metrics:
        prompts = len(self._open)
        if self._result is None:
            self._result, prompts = Result(step), len(self._rows)
        logger.warning(
            "the evaluation of version %d did not end in %.0f s (train.evaluate_timeout_s)",
            self._result.version,
            self._timeout_s,
        )
        self._result.unfinished = self._samples * prompts
        return self._end(step)

    def _end(self, step: int) -> Metrics:
        assert self._result is not None
        metrics = self._result.metrics(step, self._schedule.skipped)
        self._open, self._result = [], None
        return metrics
