"""The tiny models: stock transformers classes with small numbers, random weights, float32.

Invariant: what is saved is an ordinary model folder that transformers and vLLM load by name alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmi.demo.policy.recipe import Kind, Recipe

HEAD = 64  # a head size that vLLM's CPU attention has a kernel for
PATCH, MERGE = 14, 2
POSITIONS = 4096
_CELL = (PATCH * MERGE) ** 2  # pixels of one vision token


def make_model(kind: Kind, recipe: Recipe, tokenizer: Any) -> Any:
    """A fresh model for `tokenizer`, drawn from torch's current random state."""
    from transformers import GenerationConfig

    model = _text_model(recipe, tokenizer) if kind == "text" else _vision_model(recipe, tokenizer)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id
    )
    return model.float()


def _text_model(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_sizes(recipe, tokenizer), tie_word_embeddings=False))


def _vision_model(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    token = tokenizer.convert_tokens_to_ids
    text = _sizes(recipe, tokenizer)
    text.pop("head_dim")
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "model_type": "qwen2_5_vl_text",
            "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [8, 12, 12]},
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "hidden_size": recipe.hidden,
            "out_hidden_size": recipe.hidden,
            "intermediate_size": 2 * recipe.hidden,
            "num_heads": recipe.hidden // HEAD,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "in_channels": 3,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _sizes(recipe: Recipe, tokenizer: Any) -> dict[str, Any]:
    heads = recipe.hidden // HEAD
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.hidden,
        "intermediate_size": 3 * recipe.hidden,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": HEAD,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def make_processor(tokenizer: Any) -> Any:
    """Qwen2.5-VL's processor around `tokenizer`; images become 4 to 16 tokens."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    images = Qwen2VLImageProcessor(
        patch_size=PATCH,
        temporal_patch_size=2,
        merge_size=MERGE,
        size={"shortest_edge": 4 * _CELL, "longest_edge": 16 * _CELL},
    )
    return Qwen2_5_VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tokenizer.chat_template,
    )


def save(kind: Kind, model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model folder."""
    model.save_pretrained(folder)
    if kind == "vl":
        make_processor(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
