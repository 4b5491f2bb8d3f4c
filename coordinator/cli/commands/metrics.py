"""`llmi metrics`: serve what Prometheus wants to know of a Redis' queues and of who serves them."""

from __future__ import annotations

from typing import Annotated

import typer


def metrics(
    redis_url: Annotated[
        str,
        typer.Option(
            "--redis",
            metavar="URL",
            help="The queues' Redis \\[default: LLMI_REDIS_URL, the better place for one with a password: "
            "arguments are seen by everyone on this machine].",
        ),
    ] = "",
    bind: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to serve on; 0: a free one.")] = 9540,
) -> None:
    """Serve the queues' metrics, and the list of processes that serve their own, until stopped.

    A run serves its own; this is for queues whose workers joined by themselves. Point Prometheus' http_sd at
    [b]/targets[/b], or start [b]ops/prometheus.sh[/b].
    """
    import os
    import threading

    import redis

    from coordinator.host.signals import StopSignals
    from coordinator.watch.exporter import Exporter, listed, without_password
    from workers.errors import ConfigError
    from workers.settings import REDIS_ENV, MetricsSettings, QueueSettings

    if redis_url:
        os.environ[REDIS_ENV] = redis_url
    if not os.environ.get(REDIS_ENV):
        raise ConfigError(f"--redis: which Redis? Name one, or set {REDIS_ENV}")
    queue = QueueSettings()
    where = without_password(queue.url)
    try:
        listed(queue)
    except (redis.RedisError, ValueError) as error:
        raise ConfigError(f"--redis (or {REDIS_ENV}): {where} does not answer: {error}") from error
    with StopSignals(), Exporter(MetricsSettings(bind=bind, port=port)) as exporter:
        exporter.watch(queue)
        typer.echo(f"metrics of {where} at {exporter.url}/metrics; Ctrl-C ends it")
        threading.Event().wait()
