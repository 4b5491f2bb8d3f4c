"""The author that the configuration names: make it, check its settings.

Invariant: `check` finds missing settings before anything is started.
"""

from __future__ import annotations

from pathlib import Path

from evaluation.authors.base import Author
from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from workers.providers.http import endpoint


def make_author(settings: AuthorSettings) -> Author:
    """The configured author. Loads no model and makes no request yet."""
    if settings.provider == "openai":
        from evaluation.authors.openai import OpenAIAuthor

        return OpenAIAuthor(settings)
    from evaluation.authors.local import LocalAuthor

    return LocalAuthor(settings)


def check(settings: AuthorSettings) -> list[str]:
    """The problems of the author's settings, each with what to do. No network."""
    if settings.provider != "openai":
        return _folder(settings)
    return endpoint.problems(
        "author", settings.url, settings.model, settings.api_key_env, url_env=AUTHOR_URL_ENV
    )


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
