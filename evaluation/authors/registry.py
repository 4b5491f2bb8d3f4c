"""The author that the configuration names: make it, check its settings.

Invariant: `check` finds missing settings before anything is started.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from evaluation.authors.base import Author
from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from workers.providers.http import keys


def make_author(settings: AuthorSettings) -> Author:
    """The configured author. Loads no model and makes no request yet."""
    if settings.provider == "openai":
        from evaluation.authors.openai import OpenAIAuthor

        return OpenAIAuthor(settings)
    from evaluation.authors.local import LocalAuthor

    return LocalAuthor(settings)


def check(settings: AuthorSettings) -> list[str]:
    """The problems of the author's settings, each with its cure. No network."""
    return _endpoint(settings) if settings.provider == "openai" else _folder(settings)


def _endpoint(settings: AuthorSettings) -> list[str]:
    problems = []
    url = urlsplit(settings.url)
    if not settings.url:
        problems.append(f"author.base_url is empty; set it, or {AUTHOR_URL_ENV}, to the model's endpoint")
    elif url.scheme not in {"http", "https"} or not url.hostname:
        problems.append(f"{AUTHOR_URL_ENV} is not an http(s) URL; set it to one such as http://host:8000/v1")
    if not settings.model:
        problems.append("author.model is empty; set it to the name under which the endpoint serves the model")
    variable = keys.key_env(settings.api_key_env, settings.url)
    if variable and not os.environ.get(variable, "").strip():
        problems.append(f"{variable}, the key of author's endpoint, is not set; export it")
    return problems


def _folder(settings: AuthorSettings) -> list[str]:
    """Problems of a model folder. A hub id is not checked."""
    if not settings.model:
        return ["author.model is empty; name a model folder or a hub id such as Qwen/Qwen3-4B-Instruct-2507"]
    folder = Path(settings.model).expanduser()
    is_path = folder.exists() or settings.model.startswith((".", "/", "~"))
    if is_path and not (folder / "config.json").is_file():
        return [
            f"author.model: {settings.model} has no config.json; name a model folder, or a hub id such as "
            "Qwen/Qwen3-4B-Instruct-2507"
        ]
    return []
