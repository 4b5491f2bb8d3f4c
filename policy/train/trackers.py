"""The trackers of a run: verl's own connections to them, each in a thread of its own (verl 0.9.1).

verl's trainer waits for its trackers in each step, and ends with the first that raises. So verl itself gets
the tracker `file` alone, and `Trackers` as an entry of `Tracking.logger`, its table of trackers.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from verl.utils.tracking import Tracking

from policy.ledger.entries import Scored
from policy.tracking.backends import MLFLOW_RUN, variables
from policy.tracking.picture import Pictures
from policy.tracking.sender import CLOSE_S, Row, Sender
from policy.tracking.trained import TrainedDocuments, spread
from policy.train_sections import TrackerName
from workers.settings import BlobSettings, section
from workers.storage.atomic import save
from workers.storage.blobs import BlobStore

logger = logging.getLogger(__name__)
WITH_PICTURES = ("wandb", "tensorboard")
PICTURES = 4  # documents of a step that are shown, from the lowest reward to the highest
TAG = "documents"


class Trackers:
    """All trackers of a run; verl calls `log` with the metrics of each step.

    `config`: verl's. `run`: the folder of the run. `run_id`: its unique id.
    """

    def __init__(self, config: Any, run: Path, run_id: uuid.UUID):
        names: Sequence[TrackerName] = config.trainer.trackers
        for name in names:
            os.environ.update(variables(name, run, run_id, os.environ))
        self._senders = [
            Sender(name, functools.partial(_VerlTracker, name, config, run, TrainedDocuments(run)))
            for name in names
        ]

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Send the metrics of a step to every tracker, later."""
        numbers = {name: float(value) for name, value in data.items() if isinstance(value, Real)}
        for sender in self._senders:
            sender.put(Row(step, numbers))

    def metrics(self) -> dict[str, int]:
        """What the trackers did not take so far."""
        return {name: count for sender in self._senders for name, count in sender.metrics().items()}

    def close(self, failed: bool) -> None:
        """Send what waits, for at most `CLOSE_S` seconds. `failed`: the run failed."""
        for sender in self._senders:
            sender.end(failed)
        deadline = time.monotonic() + CLOSE_S
        for sender in self._senders:
            sender.join(deadline)


class _VerlTracker:
    """verl's connection to one tracker, and the pictures of documents."""

    def __init__(self, name: TrackerName, config: Any, run: Path, documents: TrainedDocuments):
        self._name = name
        every = config.trainer.pictures_every
        self._every = every if name in WITH_PICTURES else 0
        self._documents = documents
        self._pictures: Pictures | None = None
        before = name == "mlflow" and "MLFLOW_RUN_ID" in os.environ
        # MLflow refuses other parameters for a run that it has.
        sent = None if before else OmegaConf.to_container(config, resolve=True)
        trainer = config.trainer
        self._tracking = Tracking(trainer.project_name, trainer.experiment_name, [name], sent)
        if name not in self._tracking.logger:  # verl goes on without MLflow when it does not answer
            self._leave_mlflow(run)
            raise ConnectionError("it did not start; the log of the trainer has verl's warnings")
        if name == "mlflow":
            import mlflow

            save(run / MLFLOW_RUN, mlflow.active_run().info.run_id)

    @staticmethod
    def _leave_mlflow(run: Path) -> None:
        """End a run of MLflow that was started without its parameters, so that the next attempt continues it;
        MLflow starts none beside an active one.
        """
        import mlflow

        if (started := mlflow.active_run()) is None:
            return
        save(run / MLFLOW_RUN, started.info.run_id)
        try:
            mlflow.end_run("FAILED")
        except Exception as error:  # noqa: BLE001 - it is left here all the same, and MLflow raises anything
            logger.warning("MLflow did not end its run: %s", error)
        os.environ["MLFLOW_RUN_ID"] = started.info.run_id  # after `end_run`, which removes it

    def send(self, row: Row) -> None:
        self._tracking.log(row.data, row.step)
        try:
            self._show_documents(row.step)
        except Exception as error:  # noqa: BLE001 - the row is sent; libraries and stores raise anything
            logger.warning("%s lacks the pictures of step %d: %s", self._name, row.step, error)
        if self._name == "tensorboard":  # else the rows of two minutes are lost when a run is killed
            self._tracking.logger[self._name].writer.flush()

    def finish(self, failed: bool) -> None:
        self._tracking.finish(exit_code=int(failed))

    def _show_documents(self, step: int) -> None:
        if not self._every:
            return
        documents = self._documents.of(step)  # of each step, so that few lines of the ledger are held at once
        if documents and step % self._every == 0:
            self._show(step, spread(documents, PICTURES))

    def _show(self, step: int, documents: Sequence[Scored]) -> None:
        if self._pictures is None:
            self._pictures = Pictures(BlobStore(section("blobs", BlobSettings).url))
        drawn = []
        for scored in documents:
            title = f"step {step}, reward {scored.score.reward:.3f}"
            drawn.append((title, self._pictures.draw(scored.document, title)))
        backend = self._tracking.logger[self._name]
        if self._name == "wandb":
            images = [backend.Image(picture, caption=title) for title, picture in drawn]
            backend.log({TAG: images}, step=step)
            return
        for number, (_, picture) in enumerate(drawn):
            backend.writer.add_image(f"{TAG}/{number}", np.asarray(picture), step, dataformats="HWC")
