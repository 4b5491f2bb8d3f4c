"""The scripted job of the queue tests. `queue_app` puts it on existing queues, in workers only."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.jobs import JobContext
from workers.messages import Message, Success

Act = Literal[
    "answer", "fail_model", "fail_infrastructure", "raise", "die", "die_once", "hang_once", "eat_once"
]


class Order(Message):
    """What the job does. First it appends its start to the file `notes`, and waits for the file `after`."""

    act: Act = "answer"
    seconds: float = 0.0
    notes: str = ""
    after: str = ""


def run_order(order: Order, context: JobContext) -> Success:
    earlier = 0
    if order.notes:
        with Path(order.notes).open("a+") as notes:
            notes.write(f"start {os.getpid()}\n")
            notes.seek(0)
            earlier = sum(line.startswith("start") for line in notes) - 1
    while order.after and not Path(order.after).exists():
        time.sleep(0.02)
    time.sleep(60.0 if order.act == "hang_once" and not earlier else order.seconds)
    if order.act == "die" or (order.act == "die_once" and not earlier):
        os.kill(os.getpid(), signal.SIGKILL)
    if order.act == "eat_once" and not earlier:
        b"x" * (1 << 30)
    if order.act == "fail_model":
        raise ModelFault(Cause.NO_HIT, "nothing found", provider="test")
    if order.act == "fail_infrastructure":
        raise InfrastructureFault(Cause.QUOTA, "come back later", provider="test")
    if order.act == "raise":
        raise ZeroDivisionError("a bug")
    return Success(source={"seed": context.request.seed, "pid": os.getpid()})
