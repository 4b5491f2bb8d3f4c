"""Model folders without weights: the published sizes of the shipped configurations' models, with a small
tokenizer of the project's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmi.demo.policy.architecture import make_processor
from llmi.demo.policy.tokenizer import train_tokenizer
from policy.grammar.prompts import system_prompt

_COMMON = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
}
_QWEN3_4B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "max_position_embeddings": 262144,
    "max_window_layers": 36,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "rope_theta": 5000000,
    "tie_word_embeddings": True,
}
_QWEN3_30B_A3B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 262144,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
}
_QWEN2_5_VL_7B = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "vision_config": {
        "depth": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_act": "silu",
        "hidden_size": 1280,
        "in_chans": 3,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 112,
    },
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen3-4B": _QWEN3_4B,
    "Qwen3-30B-A3B": _QWEN3_30B_A3B,
    "Qwen2.5-VL-7B": _QWEN2_5_VL_7B,
}


def write_model_folder(name: str, folder: Path, vocabulary: int | None = None) -> Path:
    """Write the small files of a published model. `vocabulary`: its size, by default the tokenizer's."""
    tokenizer = train_tokenizer([system_prompt()], 1024)
    number = tokenizer.convert_tokens_to_ids
    config = {
        **_COMMON,
        **PUBLISHED[name],
        "vocab_size": vocabulary or len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    folder.mkdir(parents=True)
    if "vision_config" in config:
        config |= {
            "image_token_id": number("<|image_pad|>"),
            "video_token_id": number("<|video_pad|>"),
            "vision_start_token_id": number("<|vision_start|>"),
            "vision_end_token_id": number("<|vision_end|>"),
        }
        make_processor(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    ends = {"eos_token_id": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    return folder
