"""Break up control tokens in text that the model wrote for other models.

Tokenizers read `<|im_end|>` or `<|image_pad|>` in a text as the token of that name. In a prompt for an image
model, or in a document for a judge, it would end a turn or refer to an image that was never sent. Servers
and pipelines fail at that, and the failure would look like an infrastructure failure.
"""

from __future__ import annotations


def inert(text: str) -> str:
    """`text` with a space inside each `<|` (DeepSeek's has a wide bar), so that it names no token."""
    return text.replace("<|", "< |").replace("<\uff5c", "< \uff5c")
