"""The interface of an author: a model that writes the text of one document outside of training.

Invariants:
- Authors know nothing of tools, tags or queues.
- The chat is the one of training.
- An incomplete text is an exception, never a shorter text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from policy.data.dataset import place_images
from policy.document import Task
from policy.grammar import prompts


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
