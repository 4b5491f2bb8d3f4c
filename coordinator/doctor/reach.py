"""What this machine is to reach: Redis, Ray, providers and judges. Asked for real, within seconds."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import redis

from coordinator import checks, claim
from coordinator.build import CACHE_ENV
from coordinator.config import RAY_ENV, RunConfig, ServiceConfig
from coordinator.doctor.finding import Finding, fail, note, of_problems, ok
from evaluation.settings import AUTHOR_URL_ENV, RUBRIC_URL_ENV
from rewards.settings import IMAGE_URL_ENV, TEXT_URL_ENV, JudgeEndpoint
from workers.errors import ConfigError, InfrastructureFault
from workers.providers import keys, preflight
from workers.settings import REDIS_ENV

CONNECT_S = 3.0
VERDICT_S = 60.0
VARIABLES = (
    *(REDIS_ENV, RAY_ENV, CACHE_ENV),
    *(keys.SERP_KEY_ENV, keys.GENERATE_URL_ENV, keys.EDIT_URL_ENV),
    *(TEXT_URL_ENV, IMAGE_URL_ENV, AUTHOR_URL_ENV, RUBRIC_URL_ENV),
)


def examine(config: ServiceConfig) -> Iterator[Finding]:
    """Everything that `config` names, and what the environment adds to it."""
    yield _environment(config)
    yield from _redis(config)
    yield _ray()
    if isinstance(config, RunConfig) and checks.unbuilt(config):
        yield ok(
            "tools", "built here", f"a picture library and tiny image models, by `{checks.builder(config)}`"
        )
    else:
        for name, problems in _tools(config).items():
            yield from of_problems("tools", name, problems, _provider(config, name))
    yield from _judge("text", config.judges.text, config.judges.text_url, TEXT_URL_ENV)
    yield from _judge("image", config.judges.image, config.judges.image_url, IMAGE_URL_ENV)


def _environment(config: ServiceConfig) -> Finding:
    """Which of the variables that this program reads are set; never what they hold."""
    endpoints = (config.judges.text, config.judges.image, config.author, config.rubric)
    named = (config.tools.diffusion, config.tools.edit, *endpoints)
    every = sorted({*VARIABLES, *(settings.api_key_env for settings in named)} - {""})
    here = [name for name in every if os.environ.get(name)]
    absent = [name for name in every if name not in here]
    return ok("environment", "variables", f"set: {', '.join(here) or 'none'}; not set: {', '.join(absent)}")


def _redis(config: ServiceConfig) -> Iterator[Finding]:
    if not config.external_redis:
        from coordinator.redis_server import _binary

        try:
            _binary()
        except ConfigError as error:
            yield fail("queue", "Redis", str(error), f"start a Redis and name it in {REDIS_ENV}")
        else:
            yield ok("queue", "Redis", f"the embedded one, started with each run ({REDIS_ENV} is not set)")
        return
    if problems := checks.redis(config.queue):
        yield from of_problems("queue", "Redis", problems, "")
        return
    try:
        yield from _about(config)
    except redis.RedisError as error:
        yield fail(
            "queue", "Redis", f"{type(error).__name__} while asking", "look at its log and its user's rights"
        )


def _about(config: ServiceConfig) -> Iterator[Finding]:
    with claim.connect(config.queue) as client:
        started = time.monotonic()
        client.ping()
        trip_ms = (time.monotonic() - started) * 1000
        server: Any = client.info("server")
        stored: Any = client.info("persistence")
        memory: Any = client.info("memory")
        workers = sum(1 for _ in client.scan_iter("llmi:worker:*"))
    yield ok("queue", "Redis", f"version {server['redis_version']}, answers in {trip_ms:.1f} ms")
    if not stored.get("aof_enabled"):
        yield note(
            "queue", "persistence", "no append-only file", "set appendonly yes, or a restart loses what waits"
        )
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield fail(
            "queue", "eviction", f"maxmemory-policy is {policy}", "set it to noeviction, or requests vanish"
        )
    if workers:
        yield ok("queue", "workers", f"{workers} alive")
    else:
        yield note(
            "queue", "workers", "none has joined", "llmi train starts its own; else ops/start_workers.sh"
        )
    if holder := claim.held(config.queue):
        yield note("queue", "database", holder.partition(": ")[2])


def _ray() -> Finding:
    address = os.environ.get(RAY_ENV)
    if not address:
        return ok("cluster", "Ray", f"started with each run ({RAY_ENV} is not set)")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 6379), CONNECT_S):
            return ok("cluster", "Ray", f"{parts.hostname}:{parts.port} is open")
    except (OSError, ValueError) as error:
        cure = f"start it (ray start --head), correct {RAY_ENV}, or unset it and one is started with each run"
        return fail("cluster", "Ray", f"{address} is not reached ({error})", cure)


def _tools(config: ServiceConfig) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {"search": [], "diffusion": [], "edit": []}
    for problem in preflight.check(config.tools):
        found[next(name for name in found if f"tools.{name}" in problem)].append(problem)
    return found


def _provider(config: ServiceConfig, name: str) -> str:
    settings = getattr(config.tools, name)
    model = f" ({settings.model})" if settings.provider == "diffusers" else ""
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
    try:
        seconds = probe(kind, judge, url, VERDICT_S)
    except InfrastructureFault as fault:
        cure = f"start it (ops/serve_judges.sh), or correct {variable} and judges.{name}"
        yield fail("judges", name, f"no verdict from {url}: {fault.detail}", cure)
    else:
        yield ok("judges", name, f"{judge.model} at {url} gave a verdict in {seconds:.1f} s")
