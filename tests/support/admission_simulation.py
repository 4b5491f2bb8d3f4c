"""A run with admission, simulated: rollouts write, then wait for one of the slots of a judge.

Deterministic, and at once. Times are in seconds. A group is ready when its last rollout is judged.
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from random import Random
from statistics import fmean

from policy.admission.standing import Load
from policy.admission.window import InFlight, Window

POLL_S = 1.0


class SimulatedRun:
    """`batch` groups of `n` a step. `judge_s`: mean seconds of a verdict."""

    def __init__(self, window: Window, *, batch: int, n: int, slots: int, judge_s: float, train_s: float):
        self.window, self.batch, self.n, self.train_s = window, batch, n, train_s
        self.slots, self.judge_s = slots, judge_s
        self.now, self.step = 0.0, 0
        self.ready: list[int] = []  # the step in which each ready group was submitted
        self.open = self.writing = self.running = 0
        self._waiting: deque[list[int]] = deque()
        self._random, self._number = Random(1), count()
        self._events: list[tuple[float, int, str, list[int]]] = []
        self.step_s: list[float] = []
        self.staleness: list[float] = []

    def run(self, steps: int) -> None:
        """Run more steps."""
        for _ in range(steps):
            self.step += 1
            began = self.now
            self._submit(self.window.start_step(self.step, InFlight(len(self.ready), self.open), stale=0))
            while len(self.ready) < self.batch:
                loads = {"judge_image": Load(len(self._waiting), self.running)}
                flight = InFlight(len(self.ready), self.open, self.writing, loads)
                self._submit(self.window.poll(self.step, flight))
                self._until(self.now + POLL_S)
            self.ready.sort()
            self.staleness.append(fmean(self.step - step for step in self.ready[: self.batch]))
            del self.ready[: self.batch]
            self._until(self.now + self.train_s)
            self.step_s.append(self.now - began)

    def _submit(self, groups: int) -> None:
        for _ in range(groups):
            self.open += 1
            group = [self.step, self.n]
            for _ in range(self.n):
                self.writing += 1
                self._after(self._random.uniform(2.0, 8.0), "written", group)

    def _until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, event, group = heapq.heappop(self._events)
            if event == "written":
                self.writing -= 1
                self._waiting.append(group)
            else:
                self.running -= 1
                group[1] -= 1
                if not group[1]:
                    self.open -= 1
                    self.ready.append(group[0])
            while self._waiting and self.running < self.slots:
                self.running += 1
                self._after(self._random.expovariate(1 / self.judge_s), "judged", self._waiting.popleft())
        self.now = end

    def _after(self, seconds: float, event: str, group: list[int]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), event, group))
