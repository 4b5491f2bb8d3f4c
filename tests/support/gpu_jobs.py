"""Jobs of a GPU's queues whose model is simulated: loaded once per process, which is noted in a file.

`diffusion` looks for its cancellation between two steps, `edit` cannot be stopped; `code` runs beside them.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from workers.celery_app.app import app
from workers.celery_app.execution import register
from workers.errors import Cause, InfrastructureFault
from workers.jobs import JobContext, job
from workers.messages import Message, Success

NOTES_ENV = "LLMI_TEST_NOTES"
STEP_S = 0.05
KINDS = ("diffusion", "edit", "code")


class Steps(Message):
    """How many steps the job has. It notes its name when it begins and when it ends."""

    name: str
    steps: int


def note(words: str) -> None:
    with Path(os.environ[NOTES_ENV]).open("a") as notes:
        notes.write(f"{words} {os.getpid()}\n")


def load(kind: str) -> None:
    note(f"load {kind}")


def draw(kind: str, order: Steps, context: JobContext) -> Success:
    note(f"begin {order.name}")
    for _ in range(order.steps):
        time.sleep(STEP_S)
        if kind == "diffusion" and (context.cancelled() or context.remaining_s < 0):
            note(f"stop {order.name}")
            raise InfrastructureFault(Cause.CANCELLED, "cancelled between two steps")
    note(f"end {order.name}")
    return Success(source={"pid": os.getpid()})


for kind in KINDS:
    job(kind, Steps, warm=partial(load, kind))(partial(draw, kind))
    register(app, kind)
