"""Builds tiny weights for diffusers' Qwen-Image pipelines: the diffusion model of the demo and the tests.

One folder serves `QwenImagePipeline`, `QwenImageEditPipeline` and `QwenImageEditPlusPipeline` through the
same `from_pretrained` that loads the published weights; only the sizes differ (about 0.3 million parameters).
Invariants: built offline; the folder appears whole or not at all; the same version of this code gives the
same weights on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

from llmi.demo import drawn
from llmi.demo.cached_folder import cached_folder
from llmi.demo.image_models.lessons import texts
from llmi.demo.image_models.optimizing import Progress
from llmi.demo.image_models.training import train
from workers.settings import ImageModelSettings
from workers.text.patterns import LATIN_WORD

logger = logging.getLogger(__name__)

HIDDEN = 64
SPACE = "Ġ"  # how byte-level BPE writes a space
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def settings(folder: Path, *, edit: bool = False, size: str = "64x64") -> ImageModelSettings:
    """Settings for the tiny weights: few steps, little guidance."""
    return ImageModelSettings(
        provider="diffusers",
        model=str(folder),
        pipeline="QwenImageEditPlusPipeline" if edit else "QwenImagePipeline",
        size=size,
        steps=4,
        guidance=2.0,
        device="cpu",
        dtype="float32",
    )


def build_tiny_pipelines(folder: Path, progress: Progress = lambda share: None) -> Path:
    """Return `folder` with the tiny weights; build and train them first (under a minute) if they are missing.

    `progress` gets the share done, from 0 to 1.

    Raises `ConfigError` when the folder holds something else.
    """
    return cached_folder(
        folder, {"tiny": "qwen-image", "made_by": _code_hash()}, lambda part: _build(part, progress)
    )


def _build(folder: Path, progress: Progress) -> None:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline

    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spoken = " ".join([*texts(), *system_prompts()])
        tokenizer = _checked(make_tokenizer(sorted(set(LATIN_WORD.findall(spoken)))))
        pipeline = QwenImageEditPlusPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=1.0,
                use_dynamic_shifting=True,
                base_shift=0.5,
                max_shift=0.9,
                base_image_seq_len=256,
                max_image_seq_len=8192,
                shift_terminal=0.02,
                time_shift_type="exponential",
            ),
            vae=_autoencoder(),
            text_encoder=_text_encoder(tokenizer),
            tokenizer=tokenizer,
            processor=_image_processor(tokenizer),
            transformer=_transformer(),
        )
        train(pipeline, progress)
        _save(pipeline, folder)
    logger.info("tiny diffusion weights made in %.1f s", time.monotonic() - started)


def make_tokenizer(words: list[str]) -> Any:
    """Byte-level BPE with `words`, alone or after a space, as single tokens; all else is spelt out."""
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _merge_table(words)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        extra_special_tokens=list(SPECIAL),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.padding_side = "right"
    return tokenizer


def _merge_table(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Every byte, and for every word the merges that build it from left to right; those after a space
    come first.
    """
    from tokenizers import pre_tokenizers

    vocabulary = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: dict[tuple[str, str], None] = {}
    for signs in [SPACE + word for word in words] + words:
        built = signs[0]
        for sign in signs[1:]:
            merges.setdefault((built, sign))
            built += sign
            vocabulary.setdefault(built, len(vocabulary))
    return vocabulary, list(merges)


def system_prompts() -> dict[str, int]:
    """What the pipelines put before a prompt, and how many of its tokens they remove from the output."""
    from diffusers import QwenImageEditPlusPipeline, QwenImagePipeline

    parts = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "transformer"))
    bare = (QwenImagePipeline(**parts), QwenImageEditPlusPipeline(**parts, processor=None))
    return {one.prompt_template_encode.split("{}")[0]: one.prompt_template_encode_start_idx for one in bare}


def _checked(tokenizer: Any) -> Any:
    """The tokenizer, if no system prompt became shorter than what is cut: the cut would go into the
    prompt itself.
    """
    for text, cut in system_prompts().items():
        if len(tokenizer(text).input_ids) < cut:
            raise AssertionError(f"the tokenizer makes fewer than {cut} tokens of a system prompt")
    return tokenizer


def _text_encoder(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    number = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 8192,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
            "bos_token_id": number("<|endoftext|>"),
            "eos_token_id": number("<|im_end|>"),
            "pad_token_id": number("<|endoftext|>"),
            "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [4, 6, 6]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [0],
            "window_size": 112,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def _autoencoder() -> Any:
    from diffusers import AutoencoderKLQwenImage

    # 16 latent channels as in the real one: the packing of latents depends on it.
    return AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()


def _transformer() -> Any:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=HIDDEN,
        axes_dims_rope=(8, 12, 12),
    ).eval()


def _image_processor(tokenizer: Any) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from workers.providers.pipelines.pil_processor import PilProcessor

    area = 28 * 28
    return PilProcessor(tokenizer, Qwen2VLImageProcessorPil(min_pixels=4 * area, max_pixels=16 * area))


def _save(pipeline: Any, folder: Path) -> None:
    """In the layout of the published weights, so that stock and own loading both find what they expect."""
    processor = pipeline.processor
    pipeline.register_modules(processor=None)
    pipeline.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder / "processor")
    processor.tokenizer.save_pretrained(folder / "processor")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _code_hash() -> str:
    code = hashlib.sha256()
    folders = Path(__file__).parent, Path(str(drawn.__file__)).parent
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    for path in files:
        code.update(path.read_bytes())
    return code.hexdigest()
