"""How many tokens a prompt has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policy.data.dataset import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompt_tokens(
    row: Row, system: str, tokenizer: PreTrainedTokenizerBase, template: Mapping[str, Any]
) -> int:
    """Tokens of the row's text after the system prompt `system`; only the processor in the rollout knows
    those of its images.

    `template`: arguments of the chat template (verl's `data.apply_chat_template_kwargs`).
    """
    chat = _text_only(row.chat(system))
    return len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, **template))


def _text_only(messages: list[dict]) -> list[dict]:
    """The chat without images, with plain strings as content."""

    def text(content: str | list[dict]) -> str:
        if isinstance(content, str):
            return content
        return "".join(piece["text"] for piece in content if piece["type"] == "text")

    return [{"role": message["role"], "content": text(message["content"])} for message in messages]
