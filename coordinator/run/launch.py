"""One run from its configuration to its report, for `llmi demo` and `llmi train`.

Invariants:
- Nothing is started before all checks passed.
- The ledger is closed and the report written, however the run ends; then the error that ended it is raised.
- A run without its last step keeps everything that is needed to resume it.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from coordinator.check import preflight
from coordinator.config.paths import placed
from coordinator.config.settings import RunConfig
from coordinator.console.stages import Stages, image_progress
from coordinator.host.processes import MemoryWatch
from coordinator.host.signals import StopSignals
from coordinator.run.services import Services
from coordinator.state.resume import COORDINATOR, EXIT_WAIT_S, StartPoint, prepare
from coordinator.watch.exporter import ENDPOINTS, Exporter, RunState
from coordinator.watch.live import TRAINING, LiveView
from coordinator.watch.progress import Progress
from coordinator.watch.report import REPORT, write_report
from coordinator.watch.request_status import RequestStatusPoller
from coordinator.watch.summary import SUMMARY, Summary, lost_requests, read_metrics, summarize
from policy.ledger.reader import close_open, read_ledger
from policy.ledger.run_lock import exclusive, shared
from policy.ledger.writer import LedgerWriter
from policy.resume.completions import CompletionStore
from policy.settings import METRICS
from workers.errors import ConfigError
from workers.storage.listing import BlobListing

logger = logging.getLogger(__name__)
TICK_S = 0.5


def launch(
    config: RunConfig,
    runs: Path,
    console: Console,
    signals: StopSignals,
    memory: MemoryWatch,
    began: float,
    resume: bool = False,
) -> Summary:
    """Run `config` in `runs/<name>`.

    `began`: when the command started (monotonic seconds), for the duration in the summary. `resume`: resume
    the run that died there. Raises `ConfigError` before anything was started; `TrainerDied`,
    `InfrastructureFault` or `Stopped` after.
    """
    run = (runs / config.name).absolute()
    with Stages(console) as stages:
        stages.step("checking folders, services, model and data")
        preflight.check(config, run, resume, image_progress(stages.step))
    with Exporter(config.metrics) as exporter, ExitStack() as held:
        start_point = _resumed(config, run, held) if resume else _new(run, held)
        return _launch(config, run, start_point, console, signals, memory, began, exporter)


def _new(run: Path, held: ExitStack) -> StartPoint:
    run.mkdir(parents=True)
    held.enter_context(shared(run))
    return StartPoint()


def _resumed(config: RunConfig, run: Path, held: ExitStack) -> StartPoint:
    """Prepare the folder of the run that died. Raises `ConfigError` while processes of it are alive."""
    try:
        held.enter_context(exclusive(run, EXIT_WAIT_S))
    except TimeoutError as error:
        raise ConfigError(f"{error}; stop them, or wait until they end") from error
    start_point = prepare(config, run)
    for name in (SUMMARY, REPORT):  # of the end before
        (run / name).unlink(missing_ok=True)
    return start_point


def _launch(
    config: RunConfig,
    run: Path,
    start_point: StartPoint,
    console: Console,
    signals: StopSignals,
    memory: MemoryWatch,
    began: float,
    exporter: Exporter,
) -> Summary:
    config.save_yaml(run)  # before paths and addresses of this run are filled in
    config = placed(config, blobs=run)
    BlobListing(config.blobs.url).register_user(str(run))
    progress = Progress(run, config.train.steps)
    services: Services | None = None

    def conclude() -> Summary:
        signals.stopping = True
        restarts = services.fleet.restarts if services else 0
        return _conclude(run, config, memory, restarts, began)

    try:
        depths = lambda: services.depths() if services else {}  # noqa: E731 - bound below
        workers = lambda: services.fleet.states() if services else {}  # noqa: E731
        queue = lambda: (services.config.queue.url, services.config.queue) if services else None  # noqa: E731
        where = RequestStatusPoller(progress, queue).describe
        with LiveView(
            console, config.name, config.train.steps, progress, memory, depths, workers, where
        ) as view:
            if start_point.resumed:
                view.notify(f"resuming after step {start_point.step}")
            services = Services(config, run, signals, view.notify, start_point=start_point)
            with services:
                exporter.watch(
                    services.config.queue, config.name, RunState(progress, memory, services.fleet.states)
                )
                exporter.write(run)
                view.notify(f"metrics at {exporter.url}/metrics, addresses in {run / ENDPOINTS}")
                view.notify(TRAINING)
                while services.training:
                    services.tick()
                    view.show()
                    time.sleep(TICK_S)
    except BaseException:  # a run ended by Ctrl-C has a closed ledger and a report too
        try:
            conclude()
        except Exception:  # the error that ended the run is raised, not this one
            logger.exception("%s: the ledger could not be read", run)
        raise
    _finish(run)
    return conclude()


def _finish(run: Path) -> None:
    """Mark the run as finished, which cannot be resumed."""
    writer = LedgerWriter(run, COORDINATOR)
    writer.finished()
    writer.close()
    CompletionStore(run).forget_all()


def _conclude(run: Path, config: RunConfig, memory: MemoryWatch, restarts: int, began: float) -> Summary:
    lost = lost_requests(read_ledger(run), time.time())
    ledger = close_open(run)
    summary = summarize(
        ledger,
        read_metrics(run / METRICS),
        name=config.name,
        seed=config.train.seed,
        lost=len(lost),
        worker_restarts=restarts,
        peak_rss_bytes=memory.peak,
        seconds=time.monotonic() - began,
    )
    try:
        write_report(run, config, ledger, summary)
    except Exception:  # a failure of the page must not hide how the run ended
        logger.exception("%s: the report could not be written", run)
        (run / REPORT).unlink(missing_ok=True)  # it may be incomplete
    return summary
