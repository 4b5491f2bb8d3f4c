"""Findings about Redis, Ray, providers and judges: each gets a real request, within seconds."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from coordinator.check import services
from coordinator.check.doctor.clocks import clock_findings
from coordinator.check.doctor.finding import Finding, fail, note, of_problems, ok
from coordinator.config import parts
from coordinator.config.settings import RAY_ENV, ServiceConfig
from coordinator.state import claim
from evaluation.authors import author
from evaluation.rubric import judge as rubric
from evaluation.settings import AUTHOR_URL_ENV, RUBRIC_URL_ENV, AuthorSettings, RubricSettings
from rewards.settings import IMAGE_URL_ENV, TEXT_URL_ENV, JudgeEndpoint
from workers.broker.registry import read_workers
from workers.client import probe as queue_probe
from workers.errors import ConfigError, InfrastructureFault
from workers.process.interpreter import PYTHON, child_environment
from workers.providers import registry as providers
from workers.providers.http import proxies
from workers.redis_client import CHECK_TIMEOUT_S, connect_redis
from workers.settings import REDIS_ENV
from workers.storage.cache import CACHE_ENV

RAY_S = 30.0
VERDICT_S = 60.0
VARIABLES = (
    *(REDIS_ENV, RAY_ENV, CACHE_ENV),
    *providers.environment(),
    *(TEXT_URL_ENV, IMAGE_URL_ENV, AUTHOR_URL_ENV, RUBRIC_URL_ENV),
)


def examine(config: ServiceConfig) -> Iterator[Finding]:
    """Findings about everything that `config` and the environment name."""
    yield _environment(config)
    yield from _proxies(config)
    yield from _redis(config)
    yield from _ray()
    document = config.model_dump(mode="json")
    unbuilt = set(parts.missing(document))
    for name, problems in _tools(config).items():
        if any(field.startswith(f"tools.{name}.") for field in unbuilt):
            yield note("tools", name, "a part of the demo that is not built yet", parts.command(document))
        else:
            yield from of_problems("tools", name, problems, _provider(config, name))
    yield from _judge("text", config.judges.text, config.judges.text_url, TEXT_URL_ENV)
    yield from _judge("image", config.judges.image, config.judges.image_url, IMAGE_URL_ENV)
    yield from _rubric(config.rubric)
    yield from _author(config.author)


def _environment(config: ServiceConfig) -> Finding:
    """The environment variables that this program reads, set or not; never their values."""
    endpoints = (config.judges.text, config.judges.image, config.author, config.rubric)
    named = (config.tools.diffusion, config.tools.edit, *endpoints)
    every = sorted({*VARIABLES, *(settings.api_key_env for settings in named)} - {""})
    here = [name for name in every if os.environ.get(name)]
    absent = [name for name in every if name not in here]
    return ok("environment", "variables", f"set: {', '.join(here) or 'none'}; not set: {', '.join(absent)}")


def _proxies(config: ServiceConfig) -> Iterator[Finding]:
    """The proxies of the environment, and whether images from the web may use them."""
    for scheme in ("https", "http"):
        if proxy := proxies.from_environment(f"{scheme}://example.com"):
            where = f"{scheme} requests to outside services go through {proxies.redacted(proxy)}"
            yield ok("environment", f"{scheme} proxy", f"{where}; requests to private addresses never do")
    pictures = (
        bool(providers.make("search", config.tools.search).service()) and not config.tools.search.trust_proxy
    )
    if pictures and proxies.from_environment("https://example.com"):
        yield note(
            *("environment", "images", "fetched by https from hosts that this machine can resolve"),
            "if it resolves none, and the proxy refuses internal addresses, set tools.search.trust_proxy",
        )


def _redis(config: ServiceConfig) -> Iterator[Finding]:
    if not config.external_redis:
        yield _embedded()
        return
    if problems := queue_probe.problems(config.queue, services.starts_workers(config)):
        yield from of_problems("queue", "Redis", problems, "")
        return
    try:
        yield from _about(config)
    except redis.RedisError as error:
        yield fail(
            "queue",
            "Redis",
            f"{type(error).__name__} during the checks",
            "check its log and its user's permissions",
        )


def _embedded() -> Finding:
    """Start the embedded Redis of a run for a moment."""
    from coordinator.host.redis_server import EmbeddedRedis

    try:
        with (
            tempfile.TemporaryDirectory(prefix="llmi-doctor-") as folder,
            EmbeddedRedis(Path(folder)) as server,
            connect_redis(server.url, CHECK_TIMEOUT_S) as client,
        ):
            client.ping()
    except (ConfigError, redis.RedisError) as error:
        return fail("queue", "Redis", str(error), f"start a Redis and name it in {REDIS_ENV}")
    return ok("queue", "Redis", f"the embedded one answers; a run starts its own ({REDIS_ENV} is not set)")


def _about(config: ServiceConfig) -> Iterator[Finding]:
    with connect_redis(config.queue.url) as client:
        started = time.monotonic()
        client.ping()
        trip_ms = (time.monotonic() - started) * 1000
        server: Any = client.info("server")
        stored: Any = client.info("persistence")
    workers = read_workers(config.queue.url)
    yield ok("queue", "Redis", f"version {server['redis_version']}, answers in {trip_ms:.1f} ms")
    if not stored.get("aof_enabled"):
        yield note(
            "queue",
            "persistence",
            "no append-only file",
            "set appendonly yes, or a restart loses waiting requests",
        )
    if problem := queue_probe.evicts(config.queue):
        yield from of_problems("queue", "eviction", [problem], "")
    if workers:
        yield ok("queue", "workers", f"{len(workers)} alive")
        yield from clock_findings(workers)
    else:
        yield note(
            "queue", "workers", "none has joined", "llmi train starts its own; else ops/start_workers.sh"
        )
    if holder := claim.conflict(config.queue):
        yield note("queue", "database", holder.partition(": ")[2])


def _ray() -> Iterator[Finding]:
    """Run `ray status`, since another program may have the open port."""
    address = os.environ.get(RAY_ENV)
    if not address:
        yield note("cluster", "Ray", f"none is named ({RAY_ENV}); a run starts its own")
        return
    if problems := services.ray_head():
        yield from of_problems("cluster", "Ray", problems, "")
        return
    if address.startswith("ray://"):
        yield note("cluster", "Ray", f"the port of {address} is open; whether it is Ray is not checked")
        return
    command = [*PYTHON, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=RAY_S, check=False, env=child_environment(os.environ)
        )
        answered = done.returncode == 0
    except subprocess.TimeoutExpired:
        answered = False
    if answered:
        yield ok("cluster", "Ray", f"{address} answers")
    else:
        hint = f"start it (ray start --head), correct {RAY_ENV}, or unset it and a run starts its own"
        yield fail("cluster", "Ray", f"no Ray answers at {address}", hint)


def _tools(config: ServiceConfig) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {"search": [], "diffusion": [], "edit": []}
    for problem in providers.check(config.tools):
        found[next(name for name in found if f"tools.{name}" in problem)].append(problem)
    return found


def _provider(config: ServiceConfig, name: str) -> str:
    settings = getattr(config.tools, name)
    try:
        provider = providers.make(name, settings)
    except ConfigError as error:
        return str(error)
    model = f" ({provider.settings.model})" if provider.holds_model else ""
    return f"{settings.provider}{model}; settings and keys are there"


def _judge(name: str, judge: JudgeEndpoint, url: str, variable: str) -> Iterator[Finding]:
    if judge.provider == "rules":
        unused = f"; {variable} is set and not used by this configuration" if os.environ.get(variable) else ""
        yield ok("judges", name, f"by rules, in the worker{unused}")
        return
    from rewards.judges.probe import probe

    kind: Any = name
    if not url:
        yield fail("judges", name, "no address", f"set {variable} or judges.{name}.base_url")
        return
    hint = f"start it (ops/serve_judges.sh), or correct {variable} and judges.{name}"
    yield _verdict(name, judge.model, url, lambda: probe(kind, judge, url, VERDICT_S), hint)


def _rubric(settings: RubricSettings) -> Iterator[Finding]:
    if settings.provider == "rules":
        yield ok("judges", "criteria", "by rules, in the worker")
        return
    if problems := rubric.check(settings):
        yield from of_problems("judges", "criteria", problems, "")
        return
    from evaluation.rubric.openai import probe

    hint = f"start it, or correct {RUBRIC_URL_ENV} and the section rubric"
    yield _verdict("criteria", settings.model, settings.url, lambda: probe(settings, VERDICT_S), hint)


def _verdict(name: str, model: str, url: str, probe: Callable[[], float], hint: str) -> Finding:
    try:
        seconds = probe()
    except InfrastructureFault as fault:
        return fail("judges", name, f"no verdict from {url}: {fault.detail}", hint)
    return ok("judges", name, f"{model} at {url} gave a verdict in {seconds:.1f} s")


def _author(settings: AuthorSettings) -> Iterator[Finding]:
    """Findings about the author, if one is configured: training and tool workers need none."""
    if any(parts.missing({"model": settings.model})):
        yield note(
            "author", settings.provider, "the demo's tiny policy is not built yet", "llmi evaluate demo"
        )
    elif settings != AuthorSettings():
        where = settings.url if settings.provider == "openai" else "in the worker"
        fine = f"{settings.model}, {where}; settings and keys are there"
        yield from of_problems("author", settings.provider, author.check(settings), fine)
