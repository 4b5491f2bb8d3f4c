"""Prepare a training worker for a CPU; loaded as `actor_rollout_ref.model.external_lib`.

`register`: verl 0.9.1 registers its FSDP2 engine for CUDA and NPU only; it runs over gloo without changes.
Remove this when verl registers one for the device "cpu" itself:
`tests/unit/policy/cpu/test_verl_cpu.py::test_verl_has_no_cpu_engine`.

`open_group`: verl 0.9.1 passes torch the backend "cpu:gloo,<device>:<collectives>". With the device "cpu",
torch 2.13 rejects it, because "cpu" occurs twice. verl keeps a group that is already open, and imports the
external library first. Remove this when torch accepts such a name or verl does not pass it:
`tests/unit/policy/cpu/test_verl_cpu.py::test_torch_rejects_gloo_twice`.
"""

from __future__ import annotations

import functools
import os

import torch.distributed as dist
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
KEY = ("language_model", "fsdp2", "cpu")


@functools.cache  # once per process
def register() -> None:
    """Register the engine with verl."""
    model_type, backend, device = KEY
    engine = type("CpuFSDP2Engine", (FSDPEngineWithLMHead,), {"__module__": __name__})
    EngineRegistry.register(model_type=model_type, backend=backend, device=device)(engine)


def open_group() -> None:
    """Open the group, in processes with a rank from verl."""
    if all(name in os.environ for name in RENDEZVOUS) and not dist.is_initialized():
        dist.init_process_group(
            "gloo",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            init_method=os.environ.get("DIST_INIT_METHOD"),
        )


register()
open_group()
