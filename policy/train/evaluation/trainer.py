"""The part of a trainer that evaluates, by verl's public callbacks (verl 0.9.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policy.ledger.writer import LedgerWriter
from policy.settings import PAST_METRICS
from policy.train.evaluation.documents import Rows, discard
from policy.train.evaluation.evaluation import Evaluation
from policy.train.evaluation.result import SKIPPED, UNFINISHED, VERSION
from policy.train.evaluation.schedule import Schedule
from policy.train.verl_private import TrainerHooks


def past_metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of the steps before a resume: `step` and `data` of each line."""
    past = run / PAST_METRICS
    lines = past.read_text(encoding="utf-8").splitlines() if past.exists() else ()
    return [json.loads(line) for line in lines]


class Evaluating(TrainerHooks):
    """Mixed in before one of verl's trainers."""

    evaluation: Evaluation | None = None

    @property
    def evaluates(self) -> bool:
        return bool(self.config.trainer.get("evaluate_every"))

    def on_init_end(self) -> None:
        super().on_init_end()
        if self.evaluates:
            self.evaluation_rows = Rows(self.val_dataset)

    def on_train_begin(self) -> None:
        super().on_train_begin()
        discard()  # of an evaluation that the checkpoint interrupted, also when this run evaluates nothing
        if self.evaluates:
            options = self.config.trainer
            run = Path(options.v1.sampler.sampler_kwargs.run)
            past = [row["data"] for row in past_metrics(run) if VERSION in row["data"]]
            # verl stops after so many steps or epochs, the first of the two.
            last = min(self.total_training_steps, self.steps_per_epoch * options.total_epochs)
            self.evaluation = Evaluation(
                Schedule(options.evaluate_every, last, skipped=past[-1][SKIPPED] if past else 0),
                self.evaluation_rows,
                LedgerWriter(run, "evaluation"),
                manager=self.agent_loop_manager,
                samples=self.config.actor_rollout_ref.rollout.val_kwargs.n,
                timeout_s=options.evaluate_timeout_s,
            )
            done = {row[VERSION] for row in past if not row[UNFINISHED]}
            self.evaluation.start(self.global_steps - 1, done)

    def on_sample_begin(self) -> None:
        super().on_sample_begin()
        if self.evaluation:
            self.evaluation.before_batch(self.global_steps - 1)

    def step(self, metrics: dict, timing_raw: dict) -> Any:
        batch = super().step(metrics, timing_raw)
        if self.evaluation:
            metrics.update(self.evaluation.collect(self.global_steps))
        return batch

    def fit(self, agent_loop_manager: Any) -> None:
        super().fit(agent_loop_manager)
        if self.evaluation:
            last = self.global_steps - 1  # verl has counted one more
            for metrics in self.evaluation.finish(last):
                self.logger.log(data=metrics, step=last)
