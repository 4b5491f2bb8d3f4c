"""Makes the local paths of a configuration absolute.

Workers and the trainer have another working directory, and must use the same files as the checks before the
run. Hub ids and URLs stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from coordinator.config.settings import RunConfig, ServiceConfig
from workers.providers import registry as providers

C = TypeVar("C", bound=ServiceConfig)


def placed(config: C, blobs: Path | None = None) -> C:
    """`config` with absolute paths. `blobs`: parent folder of a relative image store; by default the working
    directory.
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
    """The absolute path of a model's folder; a hub id as it is."""
    is_path = bool(name) and (name.startswith(".") or Path(name).exists())
    return str(Path(name).absolute()) if is_path else name


def store(url: str, folder: Path) -> str:
    """The URL of an image store, or its absolute path below `folder`."""
    return url if "://" in url else str(folder.absolute() / url)
