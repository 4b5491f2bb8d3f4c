"""The demo's parts, as configurations name them: `demo:tiny-text`, `demo:prompts/train.parquet`.

Implements `coordinator.config.parts.Parts`; registered under the prefix `demo`.
Invariant: a name is resolved to the path that the demo builds for the configuration's seed, in `LLMI_CACHE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from llmi.demo.build import Parts
from llmi.demo.policy.build import policy_folder
from workers.errors import ConfigError
from workers.storage.cache import cache_folder

PREFIX = "demo:"
PARTS = ("tiny-text", "tiny-vl", "tiny-image", "library", "prompts")
SEED = 1  # the default of `llmi demo`
TINY_TOKENS = 512


def resolved(raw: Any, source: str) -> Any:
    """A configuration as read from `source`, each `demo:` name replaced by its path. Raises `ConfigError`."""
    train = raw.get("train") if isinstance(raw, Mapping) else None
    seed = train.get("seed", SEED) if isinstance(train, Mapping) else SEED
    return _resolved(raw, source, seed if isinstance(seed, int) else SEED)


def _resolved(value: Any, source: str, seed: int) -> Any:
    if isinstance(value, str) and value.startswith(PREFIX):
        return str(_path(value, source, seed))
    if isinstance(value, Mapping):
        return {name: _resolved(one, source, seed) for name, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one, source, seed) for one in value]
    return value


def _path(name: str, source: str, seed: int) -> Path:
    part, _, rest = name.removeprefix(PREFIX).partition("/")
    parts = Parts(cache_folder(), "text", seed)
    try:
        if part == "tiny-text":
            return policy_folder("text", parts.cache, seed=seed) / rest
        if part == "tiny-vl":
            return policy_folder("vl", parts.cache, seed=seed) / rest
    except PackageNotFoundError as error:
        raise ConfigError(f"{source}: {name}: {error.name} is not installed; run ops/install.sh") from error
    folders = {"tiny-image": parts.image_model, "library": parts.library, "prompts": parts.prompts}
    if part not in folders:
        raise ConfigError(f"{source}: {name}: no demo builds that; name one of {', '.join(PARTS)}")
    return folders[part] / rest


def missing(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The fields of a configuration (as plain values) that name a part of a demo that is not built."""
    for name, value in document.items():
        field = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from missing(value, f"{field}.")
        elif any(_is_missing(one) for one in (value if isinstance(value, list) else [value])):
            yield field


def _is_missing(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith("/"):
        return False
    path = Path(value)
    cache = cache_folder()
    if not path.is_relative_to(cache) or path == cache:
        return False
    first = path.relative_to(cache).parts[0]
    return first.startswith(PARTS) and not path.exists()


def command(document: Mapping[str, Any]) -> str:
    """The command that builds the parts that a configuration (plain values) names."""
    train = document.get("train")
    if not train:
        return "llmi evaluate demo"
    seed = "" if train["seed"] == SEED else f" --seed {train['seed']}"
    return "llmi demo" + (" --model vl" if train["modality"] == "vl" else "") + seed


def judge_model(name: Literal["text", "image"]) -> str:
    """The folder of a tiny judge model with random weights; built if it is missing."""
    from llmi.demo.policy.build import build_policy
    from llmi.demo.policy.recipe import Recipe

    kind: Literal["text", "vl"] = "text" if name == "text" else "vl"
    return str(build_policy(kind, cache_folder() / "judges", seed=0, recipe=Recipe(documents=64, steps=1)))


def services(images: bool, policy: bool, console: Console) -> tuple[Path, dict[str, object]]:
    """Build what one document needs, with progress on `console`.

    `images`: the prompt has images. `policy`: build the tiny policy too, as the author.
    Returns a configuration file, and the overrides (dotted field to value) that name the parts.
    """
    from llmi.demo.build import build
    from llmi.demo.run import overrides

    parts = Parts(cache_folder(), "vl" if images else "text", SEED, policy)
    model = build(parts, console)
    file, values = overrides(parts, model)
    if policy:
        values["author.model"] = str(model)
        values["author.system_prompt"] = False
        values["author.max_tokens"] = TINY_TOKENS
    return file, values
