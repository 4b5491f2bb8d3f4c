"""Make PyPI's torchvision importable with a CPU build of torch.

The wheel on PyPI is a CUDA build. Its C++ library cannot load with CPU torch, and `import torchvision` then
fails because of the missing schema of `torchvision::nms`. Qwen2.5-VL's processor needs torchvision's Python
code, but none of its operators. `install` hooks the import; a `.pth` file in site-packages, which
`ops/install.sh` writes, calls it in every process of the environment.

Invariants: nothing happens until torchvision is imported; where its library loads (a real CPU build, a GPU
machine), nothing happens at all.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_OPERATORS = ("nms", "qnms")  # torchvision describes these to torch even if they do not exist
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[Any] = []  # the definitions live as long as the library object


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        _prepare(module)
        super().exec_module(module)


class _Finder:
    """Finds torchvision as usual, and loads torch only when the module is executed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Hook the import of torchvision, once."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _prepare(torchvision: ModuleType) -> None:
    import torch

    if torch.version.cuda or torch.version.hip or _loads(torch, torchvision):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(name + _SIGNATURE)
    _kept.append(library)


def _loads(torch: Any, torchvision: ModuleType) -> bool:
    """Whether torchvision's own C++ library, with the real operators, can be loaded here."""
    from pathlib import Path

    found = [so for place in torchvision.__path__ for so in Path(place).glob("_C*.so")]
    if not found:
        return False
    try:
        torch.ops.load_library(str(found[0]))
    except OSError:
        return False
    return True
