"""The sections of the GPU check: what each needs, and how it runs.

Invariants: a section downloads nothing and uses only models that this project makes; it runs in a process of
its own, so that a crash ends only it and the memory of the GPU is free for the next.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmi.gpu_check import child

PROMPTS = tuple(f"a lighthouse in {light} light" for light in ("red", "green", "blue", "grey"))
TOKENS = 1024


@dataclass(frozen=True)
class Section:
    """One section. `run` returns what it measured, in words, and raises what went wrong."""

    name: str
    run: Callable[[], str]
    gpus: int = 1
    packages: tuple[str, ...] = ()

    def lacking(self, gpus: int) -> str:
        """Why it cannot run on a machine with this number of GPUs; empty when it can."""
        if gpus < self.gpus:
            return f"{self.gpus} GPUs needed, {gpus} here" if gpus else "no GPU"
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else ""


def images(device: str = "cuda") -> str:
    """A diffusers pipeline in bfloat16, one image at a time and several at once."""
    from llmi.demo.image_models.pipelines import build_tiny_pipelines, settings
    from workers.providers.image import diffusers
    from workers.storage.cache import cache_folder

    tiny = settings(build_tiny_pipelines(cache_folder() / "tiny-image"))
    pipeline = diffusers.load(tiny.model_copy(update={"device": device, "dtype": "bfloat16"}))
    options = {"num_inference_steps": tiny.steps, "width": 64, "height": 64}
    pipeline(PROMPTS[0], **options)  # compiles and allocates
    began = time.monotonic()
    single = [pipeline(prompt, **options).images[0] for prompt in PROMPTS]
    middle = time.monotonic()
    batch = pipeline(list(PROMPTS), **options).images
    ended = time.monotonic()
    sizes = {image.size for image in (*single, *batch)}
    if len(batch) != len(PROMPTS) or sizes != {(64, 64)}:
        raise RuntimeError(f"{len(batch)} images of sizes {sizes}")
    return f"{len(PROMPTS)} images: {middle - began:.2f} s one by one, {ended - middle:.2f} s as a batch"


def forward_backward(attention: str, device: str = "cuda", tokens: int = TOKENS) -> str:
    """A forward and a backward pass of a small random Qwen3 in bfloat16."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4096, hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64,
    )  # fmt: skip
    config._attn_implementation = attention
    model = Qwen3ForCausalLM(config).to(device, torch.bfloat16)
    ids = torch.randint(4096, (2, tokens), device=device)
    began = time.monotonic()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    value, took = loss.item(), time.monotonic() - began  # item() waits for the GPU
    norms = torch.stack([one.grad.float().norm() for one in model.parameters() if one.grad is not None])
    if not (math.isfinite(value) and torch.isfinite(norms).all() and norms.max() > 0):
        raise RuntimeError(f"loss {value}, largest gradient {norms.max().item()}")
    return f"loss {value:.2f}, {2 * tokens} tokens in {took:.2f} s"


def sdpa() -> str:
    return forward_backward("sdpa")


def flash_attention() -> str:
    return forward_backward("flash_attention_2")


def grpo_step() -> str:
    """One GRPO step on one GPU: it generates and trains in turn."""
    return train("sync")


def weight_sync() -> str:
    """One GRPO step with trainer and generator on GPUs of their own: NCCL sends the weights."""
    return train("separate_async")


def train(mode: str, device: str = "cuda") -> str:
    """Train the demo's configuration for one step with random weights, by `llmi train`."""
    from coordinator.console.terminal import make_console
    from llmi.demo.parts import services
    from workers.storage.cache import cache_folder

    file, parts = services(False, False, make_console(stderr=True))
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".gpu-check-") as folder:
        fields: dict[str, Any] = {
            **parts,
            "train.model": str(random_model(Path(folder) / "model")),
            "train.device": device,
            "train.mode": mode,
            "train.steps": 1,
            "train.save_every": 1,
            "train.batch_size": 2,
            "train.n": 4,
            "train.evaluate_every": 0,
            "train.gpu_memory": 0.3,
        }
        changes = [f"{field}={json.dumps(value)}" for field, value in fields.items()]
        llmi = Path(sys.executable).with_name("llmi")
        command = [str(llmi), "train", str(file), *changes, "--name", "check", "--dir", folder, "--json"]
        done = child.run(command, os.environ)
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:])
        (row,) = [json.loads(line)["data"] for line in (Path(folder) / "check/metrics.jsonl").open()]
    sync, step = row.get("timing_s/update_weights"), row["timing_s/step"]
    return f"step {step:.1f} s" + (f", weights sent in {sync:.2f} s" if sync else "")


def random_model(folder: Path) -> Path:
    """A tiny Qwen3 with random weights and the project's own tokenizer."""
    import torch

    from llmi.demo.policy.architecture import make_model, save
    from llmi.demo.policy.recipe import RECIPES
    from llmi.demo.policy.tokenizer import train_tokenizer
    from policy.grammar.prompts import system_prompt

    torch.manual_seed(0)
    recipe = RECIPES["text"]
    tokenizer = train_tokenizer([system_prompt()], recipe.vocabulary)
    save("text", make_model("text", recipe, tokenizer), tokenizer, folder)
    return folder


SECTIONS = (
    Section("diffusers images", images),
    Section("Qwen3 in bfloat16, torch's attention", sdpa),
    Section("Qwen3 in bfloat16, flash-attn", flash_attention, packages=("flash_attn",)),
    Section("one GRPO step", grpo_step, packages=("flash_attn", "vllm")),
    Section("weight sync over NCCL", weight_sync, gpus=2, packages=("flash_attn", "vllm", "cupy")),
)
