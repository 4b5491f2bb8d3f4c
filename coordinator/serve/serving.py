"""Command lines of the programs that serve the judges or an image model. Pure.

The numbers of the judges are published (arXiv 2509.13642: vLLM, tensor parallel 8, 32,768 tokens, 20 images a
prompt). Written for vLLM 0.27, vLLM-Omni 0.26 (`vllm serve MODEL --omni`) and SGLang's diffusion server
(`sglang serve --model-path MODEL`). The last two have environments of their own.

Invariants:
- Structured output is always on, so that verdicts parse.
- No two servers share a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rewards.settings import IMAGE_URL_ENV, TEXT_URL_ENV
from workers.errors import ConfigError
from workers.process.interpreter import PYTHON

JudgeName = Literal["text", "image"]
ImageServer = Literal["vllm-omni", "sglang"]
VLLM = (*PYTHON, "-m", "vllm.entrypoints.openai.api_server")
STRUCTURED = {"backend": "xgrammar", "disable_any_whitespace": True}
# For a tiny model on a few shared cores: no spinning threads, a small cache, no downloads.
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "fork",  # each import of vLLM is seconds of a core
}
TINY_TOKENS = 4096
TINY = (
    *("--enforce-eager", "--dtype", "float32", "--max-num-seqs", "8"),
    # vLLM 0.27.1 crashes on a CPU when it computes a part of a prompt of a request with a seed: it rewinds
    # the random numbers, which torch's CPU generator cannot. So prompts are computed whole. Remove this when
    # tests/unit/policy/cpu/test_verl_cpu.py::test_a_cpu_generator_takes_no_step_back fails.
    *("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(TINY_TOKENS)),
)


@dataclass(frozen=True)
class ServerSpec:
    """One server. `url`: with /v1. `variable`: the environment variable that names it to its users."""

    name: str
    command: tuple[str, ...]
    url: str
    model: str
    variable: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def health(self) -> str:
        return f"{self.url.removesuffix('/v1')}/health"


@dataclass(frozen=True)
class Judge:
    """One judge to serve. `folder`: a local model in place of the hub id `model`."""

    name: JudgeName
    model: str
    port: int
    folder: str = ""


def judges(
    wanted: Sequence[Judge],
    *,
    host: str,
    tensor_parallel: int,
    images: int,
    tokens: int,
    gpus: Sequence[str] | None,
) -> list[ServerSpec]:
    """One vLLM server for each judge.

    `gpus`: names of the GPUs, which the judges get in order; None for a CPU. `images`: most images of a
    prompt. `tokens`: context length. Raises `ConfigError` when there are too few GPUs.
    """
    need = tensor_parallel * len(wanted)
    if gpus is not None and need > len(gpus):
        raise ConfigError(
            f"--tensor-parallel-size: {len(wanted)} judges on {tensor_parallel} GPUs each need {need}, and "
            f"this machine has {len(gpus)}; lower it, name one judge with --only, or try --device cpu"
        )
    served = []
    for place, judge in enumerate(wanted):
        command = [*VLLM, "--model", judge.folder or judge.model, "--served-model-name", judge.model]
        command += ["--host", host, "--port", str(judge.port)]
        command += ["--structured-outputs-config", json.dumps(STRUCTURED)]
        if judge.name == "image":
            command += ["--limit-mm-per-prompt", json.dumps({"image": images})]
        if gpus is None:
            command += [*TINY, "--max-model-len", str(min(tokens, TINY_TOKENS))]
            env = dict(ON_CPU)
        else:
            mine = gpus[place * tensor_parallel : (place + 1) * tensor_parallel]
            command += ["--tensor-parallel-size", str(tensor_parallel), "--max-model-len", str(tokens)]
            env = {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
        variable = TEXT_URL_ENV if judge.name == "text" else IMAGE_URL_ENV
        served.append(
            ServerSpec(
                f"{judge.name} judge", tuple(command), _url(host, judge.port), judge.model, variable, env
            )
        )
    return served


def image_model(server: ImageServer, model: str, *, host: str, port: int, gpus: int) -> ServerSpec:
    """A server with an OpenAI-compatible images endpoint (`/v1/images/generations`, `/v1/images/edits`)."""
    if server == "vllm-omni":
        command = ["vllm", "serve", model, "--omni", "--host", host, "--port", str(port)]
        command += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
    else:
        command = ["sglang", "serve", "--model-path", model, "--host", host, "--port", str(port)]
        command += ["--num-gpus", str(gpus)]
    return ServerSpec(f"{server} ({model})", tuple(command), _url(host, port), model, "")


def _url(host: str, port: int) -> str:
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{reachable}:{port}/v1"
