"""Authors: models that write the text of one document outside of training. Their interface, and their choice.

Invariants:
- Authors know nothing of tools, tags or queues.
- The chat is the one of training.
- An incomplete text is an exception, never a shorter text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from policy.data.dataset import place_images
from policy.document import Task
from policy.grammar import prompts
from workers.providers.http import endpoint


@dataclass(frozen=True)
class Finish:
    """Follows the last piece of text. `model`: its name as the server reports it; `truncated`: the token
    budget ended the text.
    """

    model: str
    truncated: bool = False


class Author(Protocol):
    """Writes texts. Closing or cancelling `write` stops the model's work."""

    def write(self, task: Task, images: Sequence[bytes], seed: int) -> AsyncGenerator[str | Finish]:
        """Yield the text in pieces, then its `Finish`. `images`: the encoded ones of `task.inputs`, in order.

        Raises `InfrastructureFault` when the model does not answer or the text breaks off,
        `ModelFault(PROMPT_REFUSED)` when the prompt or the text is refused, and `ConfigError` for images that
        this model cannot read.
        """
        ...


def conversation(task: Task, images: int, *, system_prompt: bool) -> list[dict]:
    """The chat as in training. With images the user's content lists {type: image} and {type: text}."""
    messages: list[dict] = [{"role": "user", "content": task.question}]
    if images:
        messages = place_images(messages, images)
    return prompts.chat(messages, prompts.system_prompt() if system_prompt else "")


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
