"""The judge servers of this machine: models, GPUs, and a probe of each."""

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
    """The servers to start. On a CPU without a named model, a tiny model with random weights is built.

    `dry_run`: builds nothing and assumes enough GPUs, since it may run on another machine (see
    `missing_gpus`). Raises `ConfigError` when there are too few GPUs.
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
    """The problem when this machine has too few GPUs for the judges, else an empty text."""
    need, have = judges * tensor_parallel, len(_gpus())
    return f"this machine has {have} GPUs, and these judges need {need}" if have < need else ""


def probe_server(one: ServerSpec) -> float:
    """Request one verdict. Returns the seconds it took; raises `InfrastructureFault` when there was none."""
    from rewards.judges.probe import probe

    judge = JudgeEndpoint(provider="openai", model=one.model)
    return probe("text" if one.variable == TEXT_URL_ENV else "image", judge, one.url, PROBE_S)


def _tiny(name: JudgeName) -> str:
    """A model folder with random weights: its verdicts mean nothing, but they parse."""
    return parts.find(parts.DEMO, f"--{name}-model").judge_model(name)


def _gpus(at_least: int = 0) -> list[str]:
    """The names of this machine's GPUs, filled up to `at_least` names."""
    from coordinator.host import hardware

    found = [gpu.device for gpu in hardware.detect().gpus]
    return found + [str(number) for number in range(len(found), at_least)]
