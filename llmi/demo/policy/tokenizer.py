"""The tiny policy's own tokenizer: byte-level BPE, Qwen's special tokens and chat format.

Invariants: decoding an encoded text gives the same text; `<imgen>` and `</imgen>` are one token each and
stay in decoded text; no token spans a sentence end or a line break.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TAGS = ("<imgen>", "</imgen>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for piece in message.content -%}
{%- if piece.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif piece.type == 'text' %}{{ piece.text }}{% endif -%}
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}
"""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A fast tokenizer of at most `vocabulary` tokens, learnt from `texts`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    # Sentences, not words: what is always said alike, such as the fixed parts of a tag or the number of
    # images asked for, becomes single tokens, which keeps documents short and easy to learn from.
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), behavior="isolated"),
            pre_tokenizers.Split(". ", behavior="merged_with_previous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END, *VISION],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=64,
        show_progress=False,
    )
    lines = (piece for text in texts for piece in _outside_tags(text))
    core.train_from_iterator(lines, trainer)
    core.add_tokens([AddedToken(name, special=False, normalized=False) for name in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def _outside_tags(text: str) -> list[str]:
    for name in TAGS:
        text = text.replace(name, "\n")
    return [line for line in text.split("\n") if line]
