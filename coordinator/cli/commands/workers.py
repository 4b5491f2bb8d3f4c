"""`llmi workers`: start and stop this machine's workers, and list all workers of a Redis."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli.options import Json, Redis
from coordinator.cli.output import output, plain
from coordinator.console.terminal import notifier, print_line, print_table
from workers.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.scale.nodes.plan import Plan
    from workers.broker.dead_letters import DeadLetter

SHOWN = 10  # dead letters

app = typer.Typer(no_args_is_help=True, help="Start, stop and list workers of the queues of a Redis.")


Node = Annotated[str, typer.Option(metavar="NAME", help="Name of this machine \\[default: its host name].")]


@app.command()
def start(
    redis: Redis = "",
    queues: Annotated[
        str,
        typer.Option(metavar="A,B", help="Only these queues \\[default: all that this machine can serve]."),
    ] = "",
    role: Annotated[
        Literal["all", "gpu", "cpu"],
        typer.Option(help="gpu: only queues with a model that needs one; cpu: only the others."),
    ] = "all",
    config: Annotated[
        str,
        typer.Option(
            metavar="CONFIG",
            help="A YAML file, or the name of a shipped configuration \\[default: the one that a run or the "
            "first node published in that Redis].",
        ),
    ] = "",
    node: Node = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be started; start nothing.")
    ] = False,
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground", help="Stay in the foreground, for containers and systemd. SIGTERM drains."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start this machine's workers: one for each GPU, the others for its cores.

    Returns when all are ready. A supervisor in the background replaces workers that die. A second call
    changes nothing. Keys of services come from the environment, as for [b]llmi train[/b].
    """
    with output(as_json) as (console, result):
        from coordinator.host.hardware import detect
        from coordinator.host.signals import StopSignals
        from coordinator.scale.nodes import control, joining

        names = tuple(name.strip() for name in queues.split(",") if name.strip())
        machine = detect()
        wanted = joining.prepare(
            redis_url=redis, config=config, queues=names, role=role, node=node, machine=machine
        )
        record = control.running(wanted, bool(config))
        if record is not None and not dry_run:
            if foreground:
                raise ConfigError(f"{record.node} is running already; stop it first with `llmi workers stop`")
            print_line(console, f"[bold]{record.node}[/] is running already; nothing is changed")
            record = control.wait_ready(control.state_of(record), notifier(console), from_start=False)
            _show(console, record.node, record.redis, record.plan)
            result.update(record.model_dump(mode="json"), started=False)
            return
        source = config or f"published in this Redis {wanted.config.name}".strip()
        print_line(console, f"configuration: {source}")
        found = ", ".join(f"{gpu.name} ({gpu.memory_mib:,} MiB)" for gpu in machine.gpus) or "no GPU"
        print_line(console, f"found {found}, {machine.cores} cores, {machine.memory_mib:,} MiB of memory")
        _show(console, wanted.record.node, wanted.record.redis, wanted.record.plan)
        if dry_run:
            result.update(wanted.record.model_dump(mode="json", include={"node", "redis", "plan"}))
            console.print("nothing was started (--dry-run)")
            return
        with StopSignals() as signals:
            if foreground:
                logging.getLogger("coordinator").setLevel(logging.INFO)
                control.foreground(wanted, signals)
                result.update(node=wanted.record.node, stopped=True)
                return
            record, started = control.start(wanted, notifier(console))
        result.update(record.model_dump(mode="json"), started=started)
        state = control.state_of(record)
        print_line(
            console,
            f"[bold green]ready[/]: {record.node} serves {', '.join(record.plan.queues)}; logs in "
            f"[bold]{state.logs}[/]; leave with [bold]ops/stop_workers.sh[/]",
        )


@app.command()
def stop(
    redis: Redis = "",
    node: Node = "",
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Do not wait for running jobs; they are requeued when their lease expires."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Drain this machine's workers: running jobs are finished, the rest is requeued.

    Ctrl-C ends the waiting, not the draining. Exit code 0 when no worker runs.
    """
    with output(as_json) as (console, result):
        from coordinator.scale.nodes import control, joining

        state, name = joining.locate(redis, node)
        ran = control.stop(state, now, notifier(console))
        result.update(node=name, was_running=ran)
        if ran:
            print_line(console, f"[bold green]stopped[/]: no worker of {name} is left")
        else:
            print_line(console, f"no worker of {name} was running")


@app.command()
def status(redis: Redis = "", as_json: Json = False) -> None:
    """List the workers of all nodes with their queues, the queue depths, and the dead letters."""
    with output(as_json) as (console, result):
        from coordinator.scale.nodes import joining
        from workers.broker.dead_letters import read_dead_letters
        from workers.broker.depths import read_depths
        from workers.broker.registry import read_workers

        url = joining.reachable_redis(redis)
        workers, depths = read_workers(url), read_depths(url)
        ready = {queue: sum(one.ready and queue in one.queues for one in workers) for queue in depths}
        table = Table("node", "worker", "queues", "state", box=None, pad_edge=False)
        for one in workers:
            state = "ready" if one.ready else "[yellow]loading[/]"
            table.add_row(one.node, one.name, ", ".join(one.queues), state)
        if workers:
            print_table(console, table)
        else:
            console.print("no worker serves the queues of this Redis")
        table = Table("queue", "workers", "waiting", "running", "oldest", box=None, pad_edge=False)
        for queue, depth in depths.items():
            numbers = (ready[queue], depth.waiting, depth.running)
            if any(numbers):
                table.add_row(queue, *(f"{number:,}" for number in numbers), f"{depth.oldest_s:.0f} s")
        if table.row_count:
            console.print()
            print_table(console, table)
        unserved = [queue for queue, depth in depths.items() if depth.waiting and not ready[queue]]
        for queue in unserved:
            console.print(f"[bold yellow]no worker serves[/] {queue}, and requests wait there")
        letters = read_dead_letters(url)
        for letter in letters[:SHOWN]:
            _show_dead_letter(console, letter)
        if len(letters) > SHOWN:
            print_line(console, f"and {len(letters) - SHOWN} more; --json has them all")
        result.update(
            workers=[asdict(one) for one in workers],
            queues={queue: {"waiting": d.waiting, "running": d.running} for queue, d in depths.items()},
            unserved=unserved,
            dead_letters=[letter.model_dump(mode="json") for letter in letters],
        )


def _show(console: Console, node: str, redis: str, plan: Plan) -> None:
    """Print the planned pools, and the queues that are left out."""
    from coordinator.host.hardware import display_name

    table = Table(title=f"{node} on {redis}", title_justify="left", box=None, pad_edge=False)
    for name in ("queues", "workers", "concurrency", "device"):
        table.add_column(name, overflow="fold")
    for planned in plan.pools:
        pool = planned.pool
        where = ", ".join(display_name(device) for device in planned.devices) or "CPU"
        table.add_row(", ".join(pool.queues), str(pool.low), str(pool.low * pool.concurrency), where)
    print_table(console, table)
    for why in dict.fromkeys(plan.left_out.values()):
        queues = ", ".join(queue for queue, reason in plan.left_out.items() if reason == why)
        print_line(console, f"[yellow]left out[/] {queues}: {why}")


def _show_dead_letter(console: Console, letter: DeadLetter) -> None:
    def line(text: str) -> None:
        print_line(console, text)

    when = time.strftime("%F %T", time.localtime(letter.since))
    line(
        f"[bold yellow]dead letter[/] ({letter.reason}) in {plain(letter.queue)}, {when}: "
        f"{plain(letter.detail[:200])}"
    )
    if letter.request_id:
        owner = plain(letter.owner or "no rollout")
        line(f"  {plain(letter.request_id)} of {owner}: {plain(letter.payload)}")
    for attempt in letter.attempts:
        started = time.strftime("%F %T", time.localtime(attempt.started))
        line(f"  {started} started by {plain(attempt.worker)}")
