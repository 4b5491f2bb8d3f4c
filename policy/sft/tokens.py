"""The tokens of an example: its prompt as a rollout has it, then the text and an end token.

Invariants:
- The text is encoded apart from the prompt, because a rollout generates after the tokens of the prompt.
- The tokenizer encodes the text. A rollout can also generate other tokens for the same text.
- What tools return is in no document: a rollout continues after `</imgen>` without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policy.sft.examples import Example
from workers.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """`prompt`: without loss. `answer`: with loss, its end token included."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def encode(example: Example, tokenizer: PreTrainedTokenizerBase, template: Mapping[str, Any]) -> Tokens:
    """Encode one example. `template`: arguments of the chat template.

    Raises `ConfigError` for a tokenizer without an end token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError("train.model: its tokenizer has no eos_token, with which a document ends; set one")
    prompt = tokenizer.apply_chat_template(
        list(example.messages), add_generation_prompt=True, return_dict=False, **template
    )
    answer = tokenizer(example.text, add_special_tokens=False).input_ids
    return Tokens(list(prompt), [*answer, tokenizer.eos_token_id])
