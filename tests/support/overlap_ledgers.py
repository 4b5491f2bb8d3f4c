"""Ledgers of variants, written by hand: what a run would have left behind."""

from __future__ import annotations

from llmi.load.overlap.run import VariantRun
from policy.ledger.entries import Span, State, TrainerWaited
from policy.ledger.records import Ledger, RequestRecord, RolloutRecord
from workers.messages import Outcome, Request, Success

SLOTS = {"search": 2, "diffusion": 4, "edit": 1, "code": 1, "judge_text": 2, "judge_image": 2}


class Book:
    """Collects what happened, times in seconds after `ZERO`; `run` is the finished variant."""

    ZERO = 1_000_000.0

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.metrics: list[dict] = []

    def step(self, number: int, waited: Span, *, step_s: float, sync_s: float = 1.0, **more: float) -> None:
        """`waited`: from the step's beginning to when it had its samples; `step_s` by verl's clock."""
        began, ended = self._span(waited)
        self.ledger.waits.append(TrainerWaited(time=ended, began=began, step=number))
        row = {"timing_s/step": step_s, "timing_s/update_weights": sync_s, "critic/score/mean": 0.5}
        row |= {"training/off_policy/trajectory_staleness/mean": more.get("staleness", 0.0)}
        row |= {"training/off_policy/trajectory_staleness_worst/max": more.get("worst", 0.0)}
        self.metrics.append({**row, "critic/score/mean": more.get("reward", 0.5), "step": number})

    def rollout(
        self,
        name: str,
        *segments: Span,
        step: int = 0,
        state: State = "trained",
        asked: int | None = None,
    ) -> None:
        """`step`: in which it got its state; `asked`: in which it was requested (default: the same)."""
        spans = tuple(map(self._span, segments))
        self.ledger.rollouts[name] = RolloutRecord(
            name,
            started=spans[0][0] if spans else self.ZERO,
            submitted_step=step if asked is None else asked,
            segments=spans,
            generated=spans[-1][1] if spans else 0.0,
            state=state,
            step=step,
        )

    def request(
        self, owner: str, kind: str, posted: float, started: float | None, finished: float, index: int = 0
    ) -> None:
        """`started` None: no worker began it."""
        name = f"{owner}.{kind}-{index}"
        request = Request(request_id=name, kind=kind, payload={}, deadline=self.ZERO + 1e6, owner=owner)
        served = {} if started is None else {"started": started + self.ZERO, "finished": finished + self.ZERO}
        outcome = Outcome(request_id=name, kind=kind, result=Success(), **served)
        record = RequestRecord(request, posted + self.ZERO, outcome, finished + self.ZERO)
        self.ledger.requests[name] = record

    def run(self, name: str = "variant", **more) -> VariantRun:
        given = {"samples_per_step": 2, "slots": SLOTS, "warm": 1, "repeats": 3, "phased": False}
        return VariantRun(name, self.ledger, self.metrics, peak_rss_bytes=7, **(given | more))

    def _span(self, span: Span) -> Span:
        return span[0] + self.ZERO, span[1] + self.ZERO
