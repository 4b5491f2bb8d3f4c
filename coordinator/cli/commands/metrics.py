"""`llmi metrics`: serve the metrics of a Redis' queues and the addresses of its workers' metrics."""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli.options import Redis
from coordinator.console.terminal import make_console, print_line


def metrics(
    redis_url: Redis = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: a free one.")] = 9540,
) -> None:
    """Serve the queues' metrics for Prometheus, and the list of processes that serve their own, until Ctrl-C.

    A run serves its own metrics; this command is for queues without a run. Point Prometheus' http_sd at
    [b]/targets[/b], or start [b]ops/prometheus.sh[/b].
    """
    import os
    import threading

    import redis

    from coordinator.host.signals import Stopped, StopSignals
    from coordinator.watch.exporter import Exporter, read_targets
    from workers.errors import ConfigError
    from workers.redis_url import without_password
    from workers.settings import REDIS_ENV, MetricsSettings, QueueSettings

    if redis_url:
        os.environ[REDIS_ENV] = redis_url
    if not os.environ.get(REDIS_ENV):
        raise ConfigError(f"--redis: no Redis is named; give a URL, or set {REDIS_ENV}")
    queue = QueueSettings()
    where = without_password(queue.url)
    try:
        read_targets(queue)
    except (redis.RedisError, ValueError) as error:
        raise ConfigError(f"--redis (or {REDIS_ENV}): {where} does not answer: {error}") from error
    console = make_console(stderr=True)
    try:
        with StopSignals(), Exporter(MetricsSettings(bind=host, port=port)) as exporter:
            exporter.watch(queue)
            print_line(
                console,
                f"[bold green]ready[/]: metrics of {where} at {exporter.url}/metrics; Ctrl-C stops it",
            )
            threading.Event().wait()
    except Stopped:
        console.print("stopped")
