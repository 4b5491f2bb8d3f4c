"""The author outside of training: a model that writes one document's text, read as it streams.

Invariants: authors know nothing of tools, tags or queues; the chat is the one of training; what is missing is
found by `check` before anything is started; a text that is not whole is an exception, never a shorter text.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from policy.data.dataset import place_images
from policy.document import Task
from policy.grammar.prompts import SYSTEM, chat
from workers.providers.http import keys


@dataclass(frozen=True)
class Ending:
    """Comes after the last piece of text. `model`: as it names itself; `truncated`: the token budget ended
    it.
    """

    model: str
    truncated: bool = False


class Author(Protocol):
    """`write` may be closed or cancelled at any time, and then stops the model's work."""

    def write(self, task: Task, images: Sequence[bytes], seed: int) -> AsyncGenerator[str | Ending]:
        """The text in pieces, then its `Ending`. `images`: the encoded ones of `task.inputs`, in order.

        Raises `InfrastructureFault` when the model cannot be asked or its answer breaks off,
        `ModelFault(PROMPT_REFUSED)` when the prompt or the text is not allowed to pass, and `ConfigError`
        for images that this model cannot read.
        """
        ...


def make_author(settings: AuthorSettings) -> Author:
    """The configured author. Loads nothing and asks nobody yet."""
    if settings.provider == "openai":
        from evaluation.authors.openai import OpenAIAuthor

        return OpenAIAuthor(settings)
    from evaluation.authors.local import LocalAuthor

    return LocalAuthor(settings)


def conversation(task: Task, images: int, *, system_prompt: bool) -> list[dict]:
    """The chat as in training. With images the user's content lists {type: image} and {type: text}."""
    messages: list[dict] = [{"role": "user", "content": task.question}]
    if images:
        messages = place_images(messages, images)
    return chat(messages, SYSTEM if system_prompt else "")


def check(settings: AuthorSettings) -> list[str]:
    """What would stop the author from writing, each problem with its cure. Asks nobody."""
    return _endpoint(settings) if settings.provider == "openai" else _folder(settings)


def _endpoint(settings: AuthorSettings) -> list[str]:
    problems = []
    url = urlsplit(settings.url)
    if not settings.url:
        problems.append(f"author.base_url is empty; set it, or {AUTHOR_URL_ENV}, to the model's endpoint")
    elif url.scheme not in {"http", "https"} or not url.hostname:
        problems.append(f"{AUTHOR_URL_ENV} is no http(s) URL; set it to one such as http://host:8000/v1")
    if not settings.model:
        problems.append("author.model is empty; set it to the name under which the endpoint serves the model")
    variable = keys.key_env(settings.api_key_env, settings.url)
    if variable and not os.environ.get(variable, "").strip():
        problems.append(f"{variable}, the key of author's endpoint, is not set; export it")
    return problems


def _folder(settings: AuthorSettings) -> list[str]:
    """A hub id is left to the hub."""
    if not settings.model:
        return ["author.model is empty; name a model folder or a hub id such as Qwen/Qwen3-4B-Instruct-2507"]
    folder = Path(settings.model).expanduser()
    is_path = folder.exists() or settings.model.startswith((".", "/", "~"))
    if is_path and not (folder / "config.json").is_file():
        return [
            f"author.model: {settings.model} holds no config.json; name a model folder, or a hub id such as "
            "Qwen/Qwen3-4B-Instruct-2507"
        ]
    return []
