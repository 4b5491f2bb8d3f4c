"""Worker processes with simulated service times, beside a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from coordinator.config.settings import CONFIG_FILE
from llmi.load.simulated.services import SERVICES_ENV, ServiceSettings
from workers.process.worker import WorkerProcess

READY_S = 300.0  # they start beside Ray and vLLM


@contextmanager
def timed_workers(services: ServiceSettings, run: Path) -> Iterator[None]:
    """A worker for each queue, with its slots as threads. `run`: the folder with the run's configuration."""
    workers = [
        WorkerProcess(
            (queue,),
            run / CONFIG_FILE,
            slots,
            run / "logs" / f"{queue}.log",
            queue,
            app="llmi.load.simulated.timed_app",
            extra_env={SERVICES_ENV: services.model_dump_json()},
            pool="threads",
        )
        for queue, slots in services.slots.items()
    ]
    with ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
            worker.start()
        for worker in workers:
            worker.wait_ready(READY_S)
        yield
