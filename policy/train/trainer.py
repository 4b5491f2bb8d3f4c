"""verl's trainers with group ids that survive a resume, and with prompts submitted by the sampler (verl
0.9.1).

Importing this module registers them:
- `resumable_*`: the id of a group follows from its prompt and how often the run has used it, so that a group
  read again after a resume has the same id;
- `windowed_*`: submit nothing at the start of a step, where verl's trainer submits a batch and so keeps the
  number of groups in flight constant. `policy.train.sampler` submits instead, through the `refill_fn` that
  verl gives it, as `policy.admission.window` decides.
"""

from __future__ import annotations

import functools
import uuid
from pathlib import Path
from typing import Any

from verl.trainer.ppo.v1 import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.rollout.llm_server import FullyAsyncLLMServerClient

import policy.train.gradient.advantage  # noqa: F401 - registers it
from policy.train.dispatch import LeastLoadedManager
from policy.train.document_metrics import document_metrics
from policy.train.evaluation.trainer import Evaluating, past_metrics
from policy.train.gradient.metrics import complete
from policy.train.trackers import Trackers
from policy.train.verl_private import Base
from workers.storage.atomic import save

IDENTITY = "identity"


@functools.cache
def run_uuid(run: Path) -> uuid.UUID:
    """The unique id of a run, kept in its folder.

    It differs from that of an earlier run in the same folder.
    """
    path = run / IDENTITY
    if not path.exists():
        save(path, str(uuid.uuid4()))
    return uuid.UUID(path.read_text(encoding="utf-8"))


def group_id(run: uuid.UUID, index: int, visit: int) -> str:
    """The id of the group for the `visit`-th use of the prompt `index`.

    Contains no underscore (see verl's keys).
    """
    return str(uuid.uuid5(run, f"{index}.{visit}"))


class _Resumable(Evaluating):
    _trackers: Trackers | None = None

    def fit(self, agent_loop_manager: Any) -> None:
        """Train, and let the trackers finish when that returns or raises."""
        failed = True
        try:
            super().fit(agent_loop_manager)
            failed = False
        finally:
            if self._trackers:
                self._trackers.close(failed)

    def group_ids(self, batch: Any) -> list[str]:
        run = run_uuid(Path(self.config.trainer.v1.sampler.sampler_kwargs.run))
        rows = zip(batch["index"], batch["visit"], strict=True)
        return [group_id(run, int(index), int(visit)) for index, visit in rows]

    def on_train_begin(self) -> None:
        """Copy the metrics of the steps before a resume into the file that verl has just created, and connect
        the sampler to the rollout processes and the dataset.
        """
        run = Path(self.config.trainer.v1.sampler.sampler_kwargs.run)
        for row in past_metrics(run):
            self.logger.log(data=row["data"], step=row["step"])
        if self.config.trainer.get("trackers"):
            self._trackers = self.logger.logger["trackers"] = Trackers(self.config, run, run_uuid(run))
        if isinstance(self.agent_loop_manager, LeastLoadedManager):
            self.replay_buffer.groups_failed = self.agent_loop_manager.groups_failed
        self._connect_dataset()
        super().on_train_begin()

    def _connect_dataset(self) -> None:
        """Let the sampler record the results of prompts where the dataset reads them."""
        if self.config.data.curriculum.enable:
            self.train_dataset.prefer_signal()
        # The loader loads the state of a checkpoint with its iterator, which this makes: before the first
        # results, which it would replace.
        self.train_dataloader.state_dict()
        self.replay_buffer.results = self.train_dataset.results

    def step(self, metrics: dict, timing_raw: dict) -> Any:
        batch = super().step(metrics, timing_raw)
        complete(metrics)
        metrics.update(document_metrics(batch))
        metrics.update(self.train_dataset.metrics())
        metrics.update(self._trackers.metrics() if self._trackers else {})
        return batch


class _Windowed(Base):
    def prepare_step(self) -> dict:
        """Submit nothing: `GroupSamplerAsync.sample` submits the prompts."""
        return {}


@register_trainer("resumable_sync")
class ResumableSync(_Resumable, PPOTrainerSync):
    """Generates and trains in turn, on the same GPUs.

    When the samples of a step are there, documents of an evaluation may still be in generation. As in
    `colocate_async` they are interrupted, and continue with the next step's weights.
    """

    def get_llm_client(self) -> Any:
        if not self.evaluates:
            return super().get_llm_client()
        return self.llm_server_manager.get_client(client_cls=FullyAsyncLLMServerClient)

    def on_sample_end(self) -> None:
        if self.evaluates:
            self.checkpoint_manager.abort_replicas()
        super().on_sample_end()

    def on_step_end(self) -> None:
        super().on_step_end()
        if self.evaluates:
            self.checkpoint_manager.resume_generation_replicas()


@register_trainer("resumable_separate_async")
class ResumableSeparateAsync(_Resumable, PPOTrainerSeparateAsync):
    """Trainer and generator on separate GPUs."""


@register_trainer("resumable_colocate_async")
class ResumableColocateAsync(_Resumable, PPOTrainerColocateAsync):
    """Trainer and generator on the same GPUs."""


@register_trainer("windowed_separate_async")
class WindowedSeparateAsync(_Windowed, ResumableSeparateAsync):
    """Trainer and generator on separate GPUs."""


@register_trainer("windowed_colocate_async")
class WindowedColocateAsync(_Windowed, ResumableColocateAsync):
    """Trainer and generator on the same GPUs."""
