"""verl's own FSDP2 engine, registered for the device "cpu" through `EngineRegistry`.

verl 0.9.1 registers it for CUDA and NPU only; over gloo it runs as it is. It can go when verl registers one
itself: `tests/unit/policy/cpu/test_verl_cpu.py::test_verl_has_no_cpu_engine`.
"""

from __future__ import annotations

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

KEY = ("language_model", "fsdp2", "cpu")


def register() -> None:
    """Idempotent: verl imports its `external_lib` more than once in a process."""
    model_type, backend, device = KEY
    if device not in EngineRegistry._engines.get(model_type, {}).get(backend, {}):
        engine = type("CpuFSDP2Engine", (FSDPEngineWithLMHead,), {"__module__": __name__})
        EngineRegistry.register(model_type=model_type, backend=backend, device=device)(engine)
