"""One panel of the picture of `llmi bench overlap`: the median measured step of a variant.

Invariants: pure; all spans lie within the step, in seconds since it began; the trainer's spans follow each
other without a gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.watch.summary import STEP
from llmi.load.overlap.numbers import WEIGHT_SYNC, VariantNumbers, measure
from llmi.load.overlap.run import Step, VariantRun
from llmi.load.overlap.spans import clipped, lanes, running
from policy.ledger.entries import Span

QUEUES = ("search", "diffusion", "edit", "code", "judge_text", "judge_image")  # from the top
Parts = tuple[list[Span], list[Span]]


@dataclass(frozen=True)
class Panel:
    """`trainer`: its spans by what it did; `texts` and `queues`: when a text was being written, or a request
    served, first for the batch this step trained on, then for others."""

    variant: VariantRun
    numbers: VariantNumbers
    step: Step
    trainer: dict[str, list[Span]]
    texts: Parts
    queues: dict[str, Parts]

    @classmethod
    def of(cls, variant: VariantRun) -> Panel:
        """Raises ValueError as `measure` does."""
        ranked = sorted(variant.steps, key=lambda step: step.seconds)
        step = ranked[(len(ranked) - 1) // 2]
        own = variant.groups([step])
        served: dict[str, list[tuple[str, Span]]] = {queue: [] for queue in QUEUES if queue in variant.slots}
        for record in variant.ledger.requests.values():
            if record.outcome and record.outcome.started:
                span = record.outcome.started, record.outcome.finished
                served[record.request.kind].append((variant.group_of(record), span))
        rollouts = variant.ledger.rollouts.values()
        texts = ((rollout.uid, span) for rollout in rollouts for span in rollout.segments)
        queues = {queue: _parts(spans, own, step) for queue, spans in served.items()}
        return cls(variant, measure(variant), step, _trainer(step), _parts(texts, own, step), queues)

    @property
    def most_texts(self) -> int:
        """The most texts that were being written at once."""
        return max(running(self.texts[0] + self.texts[1], (0.0, self.step.seconds))[1])

    def lanes(self, queue: str) -> int:
        """Its slots, or more if more were served at once."""
        own, other = self.queues[queue]
        return max(self.variant.slots[queue], 1 + max(lanes(own + other), default=-1))


def _parts(spans: Iterable[tuple[str, Span]], own: set[str], step: Step) -> Parts:
    """Split `spans`, each with its group, into those of `own` groups and others."""
    parts: Parts = ([], [])
    for group, span in spans:
        for began, ended in clipped([span], (step.began, step.ended)):
            parts[group not in own].append((began - step.began, ended - step.began))
    return parts


def _trainer(step: Step) -> dict[str, list[Span]]:
    """verl sends the weights last in its step; what follows until the next one begins is its own work."""
    waits = [(began - step.began, ended - step.began) for began, ended in step.waits]
    waited = waits[-1][1]
    sent = max(waited, min(step.seconds, step.metric(STEP)))
    sending = max(waited, sent - step.metric(WEIGHT_SYNC))
    edges = [0.0, *(edge for wait in waits for edge in wait), sending, sent, step.seconds]
    # From wait to wait, then to the weights, and after them.
    training = [(edges[at], edges[at + 1]) for at in range(0, len(edges), 2)]
    between = [(began, ended) for began, ended in training if began < ended]
    return {"waiting": waits, "training": between, "sending weights": [(sending, sent)]}
