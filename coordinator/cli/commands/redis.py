"""`llmi redis`: a queue server of your own for several machines, where none is at hand."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from coordinator.console.terminal import make_console

PASSWORD_ENV = "LLMI_REDIS_PASSWORD"
LOOK_S = 0.5


def redis(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where its data lie.")] = Path("redis"),
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 6379,
    bind: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="An address of this machine that other machines reach; wants a password in "
            "LLMI_REDIS_PASSWORD. Without it only this machine does.",
        ),
    ] = "127.0.0.1",
) -> None:
    """Run a Redis-compatible server until Ctrl-C; started again on the same folder it has what it had.

    Needs no installation and no root. The queue's other machines name it by
    redis://:PASSWORD@ADDRESS:PORT/0 in LLMI_REDIS_URL.
    """
    from coordinator.host.redis_server import LOOPBACK, EmbeddedRedis
    from coordinator.host.signals import Stopped, StopSignals
    from workers.errors import Cause, ConfigError, InfrastructureFault

    password = os.environ.get(PASSWORD_ENV, "")
    if bind != LOOPBACK and not password:
        raise ConfigError(
            f"--bind {bind}: whoever reaches that address could read and write the queues; set {PASSWORD_ENV}"
        )
    console = make_console(stderr=True)
    server = EmbeddedRedis(folder, port, bind, password)
    try:
        with StopSignals(), server:
            user = ":PASSWORD@" if password else ""
            console.print(
                f"[bold green]ready[/]: redis://{user}{bind}:{port}/0, data in [bold]{folder}[/]; "
                "Ctrl-C ends it",
                highlight=False,
                soft_wrap=True,
            )
            while server.running:
                time.sleep(LOOK_S)
            raise InfrastructureFault(Cause.INTERNAL, f"the server ended; see {folder / 'redis.log'}")
    except Stopped:
        console.print("the server has written everything and ended")
