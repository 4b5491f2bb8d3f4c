"""The requirements of each queue besides hardware, and how long its jobs may take.

Read from the configuration, the environment and local folders; nothing is connected to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.config.settings import ServiceConfig
from evaluation.authors import author
from evaluation.rubric import judge as rubric
from rewards import settings as judges
from rewards.settings import JudgeEndpoint
from workers.providers import registry as providers
from workers.queues import QUEUES

GRACE_S = 30.0  # to store the outcome, beyond the longest time of a job


def longest_s(queue: str, config: ServiceConfig) -> float:
    """Seconds that a job of the queue may take, by the configuration or the queue table."""
    configured = {
        "code": config.tools.limit_s("code"),
        "judge_text": config.judges.text.timeout_s,
        "judge_image": config.judges.image.timeout_s,
        "judge_rubric": config.rubric.timeout_s,
        "evaluate": config.author.timeout_s,
    }
    return max(QUEUES[queue].limit_s, configured.get(queue, 0.0))


def drain_s(config: ServiceConfig, queues: Iterable[str]) -> float:
    """Seconds that a worker of these queues may take to finish its jobs."""
    return max(longest_s(queue, config) for queue in queues) + GRACE_S


def lacking(config: ServiceConfig) -> dict[str, str]:
    """Queues with jobs that would all fail here, with the first reason: a missing key, address or folder."""
    alone = JudgeEndpoint()  # judges by rules, which need nothing
    problems = {
        **{tool: _of(tool, providers.check(config.tools)) for tool in ("search", "diffusion", "edit")},
        "judge_text": judges.check(config.judges.model_copy(update={"image": alone})),
        "judge_image": judges.check(config.judges.model_copy(update={"text": alone})),
        "judge_rubric": rubric.check(config.rubric),
        "evaluate": author.check(config.author),
    }
    return {queue: found[0] for queue, found in problems.items() if found}


def _of(tool: str, problems: Sequence[str]) -> list[str]:
    return [problem for problem in problems if problem.startswith(f"tools.{tool}")]
