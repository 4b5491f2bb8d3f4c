"""One supervised training from its configuration to its summary.

Invariants:
- Nothing is started before all checks passed; nothing that it started is left.
- A run that is marked as finished is complete. Until then it is locked.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from coordinator.config.settings import RunConfig
from coordinator.console.stages import Stages
from coordinator.host.signals import StopSignals
from coordinator.sft import resume
from coordinator.sft.picture import PICTURE, draw
from coordinator.sft.prepare import Prepared, prepare
from coordinator.sft.ranks import Ranks
from coordinator.sft.summary import SftSummary, losses, summarize
from coordinator.state.resume import COORDINATOR, EXIT_WAIT_S, cut_metrics
from coordinator.watch.summary import SUMMARY
from policy.ledger.run_lock import exclusive, shared
from policy.ledger.writer import LedgerWriter
from policy.sft.examples import write
from policy.sft.settings import EXAMPLES
from workers.errors import ConfigError
from workers.storage.atomic import save

TICK_S = 0.5
TRAINING = "training"


def launch(
    config: RunConfig, runs: Path, console: Console, signals: StopSignals, resumed: bool = False
) -> SftSummary:
    """Train in `runs/<name>`. `resumed`: from the last checkpoint of the training that died there.

    Raises `ConfigError` before anything was started; `TrainerDied` or `Stopped` after.
    """
    began = time.monotonic()
    with Stages(console) as stages, ExitStack() as held:
        prepared = prepare(config, runs, stages.step, resumed=resumed)
        first = _resumed(prepared, held) if resumed else _new(config, prepared, held)
        if resumed:
            stages.notify(f"resuming after step {first}")
        prepared.config.save(prepared.run)
        if first < prepared.plan.steps:  # else it died after its last step
            _train(prepared, stages, signals)
        run = prepared.run
        cut_metrics(run, prepared.plan.steps)  # joins those of before a resume
        summary = summarize(prepared, time.monotonic() - began)
        draw(losses(run), run / PICTURE, f"{config.name}: {summary.documents:,} documents")
        save(run / SUMMARY, summary.model_dump_json(indent=1) + "\n")
        _finish(run)  # last, since a finished run cannot be resumed
    return summary


def _new(config: RunConfig, prepared: Prepared, held: ExitStack) -> int:
    prepared.run.mkdir(parents=True)
    held.enter_context(shared(prepared.run))
    write(prepared.run / EXAMPLES, prepared.selection.examples)
    config.save_yaml(prepared.run)
    return 0


def _resumed(prepared: Prepared, held: ExitStack) -> int:
    """Prepare the folder of the training that died. Raises `ConfigError` while processes of it are alive."""
    try:
        held.enter_context(exclusive(prepared.run, EXIT_WAIT_S))
    except TimeoutError as error:
        raise ConfigError(f"{error}; stop them, or wait until they end") from error
    return resume.rewind(prepared.run, prepared.plan.per_epoch)


def _train(prepared: Prepared, stages: Stages, signals: StopSignals) -> None:
    steps, run = prepared.plan.steps, prepared.run
    stages.step("loading the model", None, "")
    with Ranks(prepared.config.train, prepared.options, run, run / "work") as ranks:
        while ranks.running:
            if so_far := losses(run):
                step, loss = max(so_far.items())
                stages.step(TRAINING, step / steps, f"step {step:,} of {steps:,}, loss {loss:.3f}")
            time.sleep(TICK_S)
        signals.stopping = True


def _finish(run: Path) -> None:
    """Mark the training as finished, which cannot be resumed."""
    writer = LedgerWriter(run, COORDINATOR)
    writer.finished()
    writer.close()
