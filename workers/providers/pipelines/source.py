"""The arguments of a diffusers pipeline, read from its source.

Invariants: neither diffusers nor torch is imported, so that the preflight can use it; what the source does
not show (a pipeline of another package, an inherited `__call__`) is None, never a guess.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path


@functools.cache
def arguments(pipeline: str) -> frozenset[str] | None:
    """The argument names of a call of this pipeline, or None where the source does not show them."""
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        return None
    for file in sorted((Path(spec.origin).parent / "pipelines").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if f"class {pipeline}(" in text:
            return _call(ast.parse(text), pipeline)
    return None


def _call(module: ast.Module, pipeline: str) -> frozenset[str] | None:
    for kind in module.body:
        if isinstance(kind, ast.ClassDef) and kind.name == pipeline:
            for method in kind.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__call__":
                    taken = method.args
                    return frozenset(one.arg for one in (*taken.args, *taken.kwonlyargs))
    return None
