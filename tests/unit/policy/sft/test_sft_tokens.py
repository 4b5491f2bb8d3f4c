"""The tokens that are trained on are those of a rollout that generates the text as the tokenizer encodes it,
with loss on what it generated.
"""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from llmi.demo.policy.tokenizer import train_tokenizer
from policy.grammar.prompts import system_prompt
from policy.sft.examples import Example, write
from policy.sft.tokens import encode
from workers.errors import ConfigError

pytestmark = pytest.mark.heavy
TAG = "<imgen>{'source': 'search', 'description': 'été', 'params': {'query': 'cat'}}</imgen>"
TEXT = f"A cat.\n{TAG}\nIt sleeps."
EXAMPLE = Example(
    ({"role": "system", "content": system_prompt()}, {"role": "user", "content": "Write of a cat."}), TEXT
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([system_prompt(), TEXT], 600)


def rollout_tokens(tokenizer, template) -> tuple[list[int], list[int]]:
    """Prompt and response as a rollout has them: verl's builder of prompts, then generated tokens."""
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    builder = create_continuous_token_builder(tokenizer, hf_model_type="qwen3", chat_template_kwargs=template)
    prompt = builder.build_initial_tokens(list(EXAMPLE.messages))
    generated = [*tokenizer.encode(TEXT, add_special_tokens=False), tokenizer.eos_token_id]
    assert tokenizer.decode(generated, skip_special_tokens=True) == TEXT
    return prompt, generated


@pytest.mark.parametrize("template", [{}, {"enable_thinking": False}])
def test_an_example_has_the_tokens_of_a_rollout(tokenizer, template):
    before = tokenizer.chat_template
    try:
        # As Qwen3's: a switch changes what stands before the answer.
        switch = "{%- if add_generation_prompt and enable_thinking is false %}<think></think>{% endif -%}"
        tokenizer.chat_template = before + switch
        tokens = encode(EXAMPLE, tokenizer, template)
        assert (tokens.prompt, tokens.answer) == rollout_tokens(tokenizer, template)
        assert tokenizer.decode(tokens.prompt).endswith("<think></think>") == bool(template)
    finally:
        tokenizer.chat_template = before


def test_only_the_answer_and_its_end_have_loss(tokenizer, tmp_path):
    from policy.sft.dataset import ExampleDataset

    write(tmp_path / "examples.parquet", [EXAMPLE])
    config = OmegaConf.create({"max_length": 2000, "apply_chat_template_kwargs": {}})
    dataset = ExampleDataset([str(tmp_path / "examples.parquet")], tokenizer, config)
    [row] = [dataset[item] for item in range(len(dataset))]
    prompt, generated = rollout_tokens(tokenizer, {})
    assert row["input_ids"].tolist() == prompt + generated
    assert row["input_ids"][row["loss_mask"].bool()].tolist() == generated
    assert row["position_ids"].tolist() == list(range(len(prompt + generated)))
    with pytest.raises(ConfigError, match=r"sft.max_tokens: 9 is less than the longest example"):
        ExampleDataset([str(tmp_path / "examples.parquet")], tokenizer, OmegaConf.create({"max_length": 9}))


def test_a_tokenizer_without_an_end_is_refused(tokenizer):
    end, tokenizer.eos_token = tokenizer.eos_token, None
    try:
        with pytest.raises(ConfigError, match=r"train.model: its tokenizer has no eos_token"):
            encode(EXAMPLE, tokenizer, {})
    finally:
        tokenizer.eos_token = end
