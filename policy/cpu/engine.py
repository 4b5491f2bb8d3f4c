"""Register verl's own FSDP2 engine for the device "cpu", through `EngineRegistry`.

verl 0.9.1 registers it for CUDA and NPU only; it runs over gloo without changes. Remove this when verl
registers one itself: `tests/unit/policy/cpu/test_verl_cpu.py::test_verl_has_no_cpu_engine`.
"""

from __future__ import annotations

import functools

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

KEY = ("language_model", "fsdp2", "cpu")


@functools.cache  # once per process
def register() -> None:
    """Register the engine with verl."""
    model_type, backend, device = KEY
    engine = type("CpuFSDP2Engine", (FSDPEngineWithLMHead,), {"__module__": __name__})
    EngineRegistry.register(model_type=model_type, backend=backend, device=device)(engine)
