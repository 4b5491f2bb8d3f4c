"""Checks before a run: every problem that would stop it, found before anything is started.

Invariants: nothing is left started or written, and nothing is fetched; all problems are reported at once,
each with field, file or variable and what to do; no message shows a password.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.check import folders, inputs, options, services
from coordinator.config.settings import RunConfig
from policy import tools
from policy.data.checked_images import Progress
from policy.tracking import backends
from rewards import settings as rewards_settings
from workers.errors import ConfigError
from workers.providers import registry as providers


def check(config: RunConfig, run: Path, resume: bool = False, progress: Progress | None = None) -> None:
    """Raise one `ConfigError` with all problems, one a line.

    `resume`: the run in this folder is resumed. `progress`: called with the images that are checked.
    """
    problems = [
        *surroundings(config, run, resume),
        *options.problems(config, run),
        *backends.missing(config.train.trackers),
        *(inputs.unbuilt(config) or [*missing(config), *inputs.data(config, progress)]),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def surroundings(config: RunConfig, run: Path, resume: bool = False) -> list[str]:
    """Problems that do not depend on model and data: of folders, the jail, Ray and a named Redis."""
    outside: list[str] = []
    if config.external_redis and not services.redis_url(config):
        outside = services.redis(config.queue, services.starts_workers(config))
        outside = outside or services.claimed(config.queue, config.name if resume else "")
    return [*local(config, run, resume), *services.jail(config), *outside, *services.ray_head()]


def local(config: RunConfig, run: Path, resume: bool = False) -> list[str]:
    """The problems of `surroundings` that are found without a connection."""
    own = folders.resumable(config, run) if resume else folders.run_folder(run)
    return [*own, *folders.blobs(config), *services.redis_url(config), *services.cluster(config)]


def missing(config: RunConfig) -> list[str]:
    """Missing keys, addresses and local folders of the configured providers, judges and model."""
    judges = rewards_settings.check(config.judges, config.reward)
    return [*tools.check(), *providers.check(config.tools), *judges, *inputs.model(config)]
