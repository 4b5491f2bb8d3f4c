"""`llmi redis`: run a Redis-compatible server for the queues."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from coordinator.console.terminal import make_console, print_line

PASSWORD_ENV = "LLMI_REDIS_PASSWORD"
POLL_S = 0.5


def redis(
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder for its data.")] = Path(
        "redis"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 6379,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. One that other machines reach needs a password, in "
            "LLMI_REDIS_PASSWORD."
        ),
    ] = "127.0.0.1",
) -> None:
    """Run a Redis-compatible server until Ctrl-C. Its data survive a restart on the same folder.

    Needs no installation and no root. Other machines name it as redis://:PASSWORD@HOST:PORT/0 in
    LLMI_REDIS_URL.
    """
    from coordinator.host.redis_server import LOOPBACK, EmbeddedRedis
    from coordinator.host.signals import Stopped, StopSignals
    from workers.errors import Cause, ConfigError, InfrastructureFault

    password = os.environ.get(PASSWORD_ENV, "")
    if host != LOOPBACK and not password:
        raise ConfigError(
            f"--host {host}: everyone who reaches that address could change the queues; set {PASSWORD_ENV}"
        )
    console = make_console(stderr=True)
    server = EmbeddedRedis(folder, port, host, password)
    try:
        with StopSignals(), server:
            user = ":PASSWORD@" if password else ""
            print_line(
                console,
                f"[bold green]ready[/]: redis://{user}{host}:{port}/0, data in [bold]{folder}[/]; "
                "Ctrl-C stops it",
            )
            while server.running:
                time.sleep(POLL_S)
            raise InfrastructureFault(Cause.INTERNAL, f"the server ended; see {folder / 'redis.log'}")
    except Stopped:
        console.print("stopped; all data are written")
