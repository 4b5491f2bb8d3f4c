"""Size and training of the tiny policy.

Invariant: a recipe, a kind and a seed determine the model; the same three give the same cache key.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from llmi.demo.prompts.specimens import Flaws

Kind = Literal["text", "vl"]

_SOURCES = ("prompts", "policy")
_LIBRARIES = ("torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class Recipe:
    """Sizes in weights per layer, `steps` of `batch` documents each. `limit_s`: seconds after which a slow
    machine trains fewer steps; the model then depends on its speed."""

    documents: int
    steps: int
    batch: int = 16
    learning_rate: float = 2.5e-3
    limit_s: float = 165.0
    vocabulary: int = 1024
    hidden: int = 128
    layers: int = 4
    flaws: Flaws = field(default_factory=Flaws)


RECIPES: dict[Kind, Recipe] = {
    "text": Recipe(documents=9_000, steps=750, learning_rate=3e-3),
    "vl": Recipe(documents=6_000, steps=700),
}


def cache_key(kind: Kind, recipe: Recipe, seed: int) -> str:
    """16 hex digits that change with the recipe, the code that builds the model, and its libraries."""
    digest = hashlib.sha256(repr((kind, sorted(asdict(recipe).items()), seed)).encode())
    for name in _LIBRARIES:
        digest.update(version(name).encode())
    package = Path(__file__).resolve().parent.parent
    for name in _SOURCES:
        for file in sorted((package / name).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
