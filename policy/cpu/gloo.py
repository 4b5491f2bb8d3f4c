"""Open a training worker's process group over gloo; loaded as `actor_rollout_ref.model.external_lib`.

verl 0.9.1 passes torch the backend "cpu:gloo,<device>:<collectives>". With the device "cpu", torch 2.13
rejects it, because "cpu" occurs twice. verl keeps a group that is already open, and imports the external
library first. Remove this when torch accepts such a name or verl does not pass it:
`tests/unit/policy/cpu/test_verl_cpu.py::test_torch_rejects_gloo_twice`.
"""

from __future__ import annotations

import os

import torch.distributed as dist

from policy.cpu import engine

RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def open_group() -> None:
    """Open the group, in processes with a rank from verl."""
    if all(name in os.environ for name in RENDEZVOUS) and not dist.is_initialized():
        dist.init_process_group(
            "gloo",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            init_method=os.environ.get("DIST_INIT_METHOD"),
        )


engine.register()
open_group()
