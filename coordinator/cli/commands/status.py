"""`llmi status`: where a run stands, what it waits for, and what is stuck."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli.commands.output import Json, Runs, output, run_folder

if TYPE_CHECKING:
    from coordinator.watch.status import Status

QUIET_S = 60.0
TOLD_S = 0.1  # what took less is in the JSON alone


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under --runs.")],
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Say where a run stands: step, reward, why its trainer and generator were idle, and what is stuck.

    Works while it goes on, and after.
    """
    with output(as_json) as (console, result):
        from coordinator.watch.status import read_status

        folder = run_folder(run, runs)
        now = read_status(folder)
        result.update(now.model_dump(mode="json"))
        _show(console, now, folder)


def _show(console: Console, now: Status, folder: Path) -> None:
    from coordinator.console.stages import duration
    from coordinator.watch.status import in_words

    def line(what: str, words: str) -> None:
        console.print(f"{what:<16}{words}", markup=False, highlight=False, soft_wrap=True)

    if now.quiet_s > QUIET_S and not now.ended:
        line(now.name, f"no end is recorded, and nothing was written for {now.quiet_s:.0f} s")
    else:
        line(now.name, "ended" if now.ended else "under way")
    left = f", about {duration(now.left_s)} left" if now.left_s else ""
    line("step", f"{now.step}/{now.steps or '?'}{left}")
    line("reward", "-" if now.reward is None else f"{now.reward:.3f}")
    line("trainer idle", _causes(now.trainer_idle_ratio, now.trainer_idle_s))
    line("generator idle", _causes(now.generator_idle_ratio, now.generator_idle_s))
    if now.masked:
        causes = ", ".join(f"{count:,} {cause.replace('_', ' ')}" for cause, count in now.masked.items())
        line("masked", f"{causes}; `llmi why {folder}` lists them")
    if now.waiting:
        line("waits now for", in_words(now.waiting))
    for words in now.paused:
        line("paused", words)
    for words in now.down:
        if words not in now.paused:
            line("left alone", words)
    for words in now.advisories:
        line("masking answers", words)
    if now.queues is not None:
        busy = {name: depth for name, depth in now.queues.items() if any(depth.values())}
        shown = (f"{name} {d['waiting']} waiting, {d['running']} running" for name, d in busy.items())
        line("queues", "; ".join(shown) or "empty")
    elif not now.ended:
        line("queues", "Redis does not answer")
    if one := now.longest_pending:
        line("longest pending", f"{one.request_id}, {one.tool}, for {one.age_s:.0f} s: {one.state}")
        line("", f"for {one.rollout}: {one.prompt}")


def _causes(ratio: float | None, seconds: dict[str, float]) -> str:
    share = "-" if ratio is None else f"{ratio:.0%}"
    told = (f"{cause} {value:.1f} s" for cause, value in seconds.items() if value >= TOLD_S)
    return ", ".join([share, *told])
