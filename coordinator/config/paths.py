"""The local paths of a configuration, made absolute where it was given.

Workers and the trainer run in another folder, and then use the same files as the checks before the run. Names
of the hub and URLs stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from coordinator.config.settings import RunConfig, ServiceConfig
from workers.providers import registry as providers

C = TypeVar("C", bound=ServiceConfig)


def placed(config: C, blobs: Path | None = None) -> C:
    """`config` with absolute paths. `blobs`: the folder in which a relative image store lies, when that is
    not the working directory.
    """
    tools = config.tools
    # Only what a provider reads: the rest must not differ between nodes.
    chosen = {tool: provider.settings for tool, provider in providers.of_tools(tools).items()}
    if chosen["search"].provider == "library":
        library = str(Path(chosen["search"].library).absolute())
        chosen["search"] = chosen["search"].model_copy(update={"library": library})
    for tool in ("diffusion", "edit"):
        if chosen[tool].provider == "diffusers":
            chosen[tool] = chosen[tool].model_copy(update={"model": model(chosen[tool].model)})
    update: dict[str, object] = {
        "blobs": config.blobs.model_copy(update={"url": store(config.blobs.url, blobs or Path.cwd())}),
        "tools": tools.model_copy(update=chosen),
    }
    if config.author.provider == "local":
        update["author"] = config.author.model_copy(update={"model": model(config.author.model)})
    if isinstance(config, RunConfig):
        files = {
            name: tuple(str(Path(file).absolute()) for file in getattr(config.data, name))
            for name in ("train", "test")
        }
        update["data"] = config.data.model_copy(update=files)
        update["train"] = config.train.model_copy(update={"model": model(config.train.model)})
    return config.model_copy(update=update)


def model(name: str) -> str:
    """A model's folder; a name of the hub as it is."""
    is_path = bool(name) and (name.startswith(".") or Path(name).exists())
    return str(Path(name).absolute()) if is_path else name


def store(url: str, folder: Path) -> str:
    """An image store's URL, or its folder below `folder`."""
    return url if "://" in url else str(folder.absolute() / url)
