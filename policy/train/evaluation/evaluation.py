"""Evaluate the test files while training (`train.evaluate_every`), without ever holding up a step.

An evaluation is submitted when a step ends and read at the end of later steps, until all its documents have
ended. Only after the last step of the run it is waited for, for at most `timeout_s`.

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
        self._last = -1  # version of the newest evaluation, or of the newest result

    def start(self, version: int, done: Collection[int]) -> None:
        """Before the first step. `version`: of the weights. `done`: versions with results before a resume."""
        self._last = max(done, default=-1)
        if self._schedule.due_at_start(version, done):
            self._due = version
            self._submit_due(version)

    def step_ended(self, version: int) -> None:
        """After the step that made this version: submit an evaluation if one is due."""
        if self._schedule.start(version, open_=self._result is not None):
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
        """After the last step: wait for the open evaluation, and for that of the last version if the open one
        kept it from being submitted.
        """
        results = [self._wait(version)]
        if self._last < version and self._schedule.due(version):
            self._due = version
            results.append(self._wait(version))
        self._rows.close()
        self._ledger.close()
        return [metrics for metrics in results if metrics]

    def _submit_due(self, version: int) -> None:
        if self._due is not None and self._rows.ready():
            self._submit(version)

    def _submit(self, version: int) -> None:
        self._open = submit(self._rows.take(), version, self._manager)
        self._result, self._due, self._last = Result(version), None, version
        logger.info("evaluation of version %d: %d prompts", version, len(self._open))

    def _wait(self, step: int) -> Metrics:
        until = time.monotonic() + self._timeout_s
        while self._due is not None or self._result is not None:
            self._submit_due(step)
            if metrics := self.collect(step):
                return metrics
            if time.monotonic() > until:
                return self._give_up(step)
            time.sleep(POLL_S)
        return {}

    def _give_up(self, step: int) -> Metrics:
        self._due = None
        logger.warning("the last evaluation did not end in %.0f s", self._timeout_s)
        if self._result is None:
            return {}
        self._result.unfinished = self._samples * len(self._open)
        return self._end(step)

    def _end(self, step: int) -> Metrics:
        assert self._result is not None
        metrics = self._result.metrics(step, self._schedule.skipped)
        self._open, self._result = [], None
        return metrics
