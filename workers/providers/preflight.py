"""What is missing for the chosen providers, in words, before a run starts. Looks at settings, environment,
folders and the installed diffusers' source only.
"""

from __future__ import annotations

import os
from pathlib import Path

from workers.errors import ConfigError
from workers.providers.http import keys
from workers.providers.image import diffusers_pipeline, pipeline_source
from workers.providers.search import library
from workers.settings import ImageModelSettings, SearchSettings, ToolSettings


def check(tools: ToolSettings) -> list[str]:
    """Problems, each with the field's name and the cure; empty when every chosen provider has what it
    needs.
    """
    return [
        *_search(tools.search),
        *_images("tools.diffusion", tools.diffusion, keys.GENERATE_URL_ENV),
        *_images("tools.edit", tools.edit, keys.EDIT_URL_ENV),
        *_edits(tools.edit),
    ]


def _search(settings: SearchSettings) -> list[str]:
    if settings.provider == "serpapi":
        problems = _url("tools.search.base_url", settings.base_url)
        if not os.environ.get(keys.SERP_KEY_ENV, "").strip():
            problems.append(
                f"tools.search.provider is serpapi: set the environment variable {keys.SERP_KEY_ENV}"
            )
        return problems
    captions = Path(settings.library) / library.CAPTIONS
    if captions.is_file():
        return []
    return [
        f"tools.search.library: {captions} is missing; name a folder of images with that file in it, "
        'one JSON object per line: {"file": ..., "caption": ...}'
    ]


def _images(field: str, settings: ImageModelSettings, env: str) -> list[str]:
    if settings.provider == "openai":
        problems = _url(f"{field}.base_url", settings.base_url)
        if not settings.model or "model" not in settings.model_fields_set:  # the default is a local folder
            problems.append(f"{field}.model: missing; give the name under which the endpoint serves it")
        variable = keys.images_key_env(settings)
        if variable and not os.environ.get(variable, "").strip():
            problems.append(f"{field}.api_key_env: set the environment variable {variable}")
        return problems
    if settings.provider == "qwen_server":
        return _url(f"{field}.base_url (or environment variable {env})", keys.qwen_url(settings, env))
    problems = []
    try:
        diffusers_pipeline.pixel_size(settings.size)
    except ConfigError as error:
        problems.append(f"{field}.{error}")
    if _is_path(settings.model) and not (Path(settings.model) / "model_index.json").is_file():
        problems.append(
            f"{field}.model: {settings.model} holds no model_index.json; name a diffusers folder or a hub id"
        )
    return problems


def _edits(settings: ImageModelSettings) -> list[str]:
    """A pipeline that takes no image cannot change one: each edit would fail, and mask its sample."""
    taken = pipeline_source.arguments(settings.pipeline) if settings.provider == "diffusers" else None
    if taken is None or "image" in taken:
        return []
    return [
        f"tools.edit.pipeline: {settings.pipeline} takes no image; name one that does, such as "
        f"{ToolSettings().edit.pipeline}"
    ]


def _is_path(model: str) -> bool:
    """A hub id is `owner/name`; anything that exists or begins like a path is a folder."""
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") != 1


def _url(field: str, url: str) -> list[str]:
    if url.startswith(("http://", "https://")):
        return []
    wrong = f"{field}: {url!r} is no address" if url else f"{field} is empty"
    return [f"{wrong}; give an address that begins with http:// or https://"]
