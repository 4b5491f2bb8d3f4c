"""The judges' servers of this machine: which models and GPUs, and the proof that each gives verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from coordinator.config import parts
from coordinator.serve import serving
from coordinator.serve.serving import Judge, JudgeName, ServerSpec
from rewards.settings import TEXT_URL_ENV, JudgeEndpoint, JudgeSettings

PROBE_S = 120.0


def plan(
    names: Sequence[JudgeName],
    *,
    models: Mapping[JudgeName, str],
    ports: Mapping[JudgeName, int],
    host: str,
    tensor_parallel: int,
    images: int,
    tokens: int,
    device: Literal["cuda", "cpu"],
    dry_run: bool = False,
) -> list[ServerSpec]:
    """What to start. On the CPU without a model named, a tiny untaught one is built in the cache.

    Raises `ConfigError` when there are too few GPUs; with `dry_run`, which may be on another machine than the
    one that will serve, there are always enough (see `lacking`).
    """
    published = JudgeSettings()
    wanted = []
    for name in names:
        model, folder = models[name], ""
        if not model and device == "cpu":
            model = f"tiny-{name}-judge"
            folder = "TINY_MODEL_BUILT_AT_START" if dry_run else _tiny(name)
        elif not model:
            model = (published.text if name == "text" else published.image).model
        wanted.append(Judge(name, model, ports[name], folder))
    return serving.judges(
        wanted,
        host=host,
        tensor_parallel=tensor_parallel,
        images=images,
        tokens=tokens,
        gpus=None if device == "cpu" else _gpus(tensor_parallel * len(wanted) if dry_run else 0),
    )


def missing_gpus(judges: int, tensor_parallel: int) -> str:
    """What would keep the judges from starting on this machine's GPUs; empty when there are enough."""
    need, have = judges * tensor_parallel, len(_gpus())
    return f"this machine has {have} GPUs, and these judges need {need}" if have < need else ""


def probe_server(one: ServerSpec) -> float:
    """Seconds that a real verdict took. Raises `InfrastructureFault` when there was none."""
    from rewards.judges.probe import probe

    judge = JudgeEndpoint(provider="openai", model=one.model)
    return probe("text" if one.variable == TEXT_URL_ENV else "image", judge, one.url, PROBE_S)


def _tiny(name: JudgeName) -> str:
    """A model folder with random weights: its verdicts mean nothing, but they parse."""
    return parts.find(parts.DEMO, f"--{name}-model").judge_model(name)


def _gpus(at_least: int = 0) -> list[str]:
    """The ids of this machine's, and as many more as `at_least` asks for."""
    from coordinator.host import hardware

    found = [gpu.device for gpu in hardware.detect().gpus]
    return found + [str(number) for number in range(len(found), at_least)]
