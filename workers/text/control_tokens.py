"""Break up control tokens in text that the model wrote for other models.

Tokenizers read `<|im_end|>` or `<|image_pad|>` in a text as the token of that name. In a prompt for an image
model, or in a document for a judge, it would end a turn or refer to an image that was never sent. Servers
and pipelines fail at that, and the failure would look like an infrastructure failure.

Covered are the tokens with bars (Qwen, Llama 3, Phi, DeepSeek, GPT), and those in angle or square brackets of
Llama 2, Mistral, Gemma, Qwen, InternVL, GLM, Seed and Nemotron.
"""

from __future__ import annotations

from workers.text.patterns import CONTROL_BAR, CONTROL_WORD


def inert(text: str) -> str:
    """`text` with a space behind the first character of each control token, so that it names none."""
    return CONTROL_WORD.sub(r"\g<0> ", CONTROL_BAR.sub(r"\g<0> ", text))
