"""The processor of Qwen's edit pipelines without torchvision.

transformers' own `Qwen2VLProcessor` holds a video processor and needs torchvision, and the published wheels
of torchvision are CUDA builds that cannot be imported with a CPU torch. The edit pipelines call only
`processor(text=..., images=..., padding=True, return_tensors="pt")`; this class does it with the PIL image
processor of the same library and the same settings file. It is used only where torchvision cannot be
imported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from PIL import Image

IMAGE_PAD = "<|image_pad|>"


def torchvision_works() -> bool:
    """Whether torchvision can be imported with this torch."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # noqa: BLE001 - a CUDA build beside a CPU torch fails with RuntimeError, not ImportError
        return False
    return True


def load(model: str, tokenizer: Any) -> Any:
    """The processor for the edit pipeline at `model` (folder or hub id), with the image settings saved under
    `processor/`.
    """
    if torchvision_works():
        from transformers import Qwen2VLProcessor

        return Qwen2VLProcessor.from_pretrained(model, subfolder="processor")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    images = Qwen2VLImageProcessorPil.from_pretrained(model, subfolder="processor")
    return PilProcessor(tokenizer, images)


class PilProcessor:
    """Tokenizer and PIL image processor; each `<|image_pad|>` is widened to the patches of its image."""

    def __init__(self, tokenizer: Any, image_processor: Any):
        self.tokenizer, self.image_processor = tokenizer, image_processor

    def __call__(
        self,
        text: str | Sequence[str],
        images: Sequence[Image.Image] | Image.Image | None = None,
        padding: bool = True,
        return_tensors: str = "pt",
        **_: Any,
    ) -> Any:
        """A `BatchFeature` with input_ids, attention_mask and, with images, pixel_values and image_grid_thw.

        With several texts and one set of images, every text gets the whole set.
        """
        import torch
        from transformers import BatchFeature

        texts = [text] if isinstance(text, str) else list(text)
        data: dict[str, Any] = {}
        if images is not None:
            pictures = [images] if isinstance(images, Image.Image) else list(images)
            data.update(self.image_processor(images=pictures, return_tensors=return_tensors))
            merged = self.image_processor.merge_size**2
            counts = itertools.cycle([int(grid.prod()) // merged for grid in data["image_grid_thw"]])
            asked = sum(one.count(IMAGE_PAD) for one in texts)
            texts = [_widened(one, counts) for one in texts]
            if asked > len(pictures):
                sets = asked // len(pictures)
                data = {name: torch.cat([tensor] * sets) for name, tensor in data.items()}
        tokens = self.tokenizer(texts, padding=padding, return_tensors=return_tensors)
        data.update(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return BatchFeature(data)


def _widened(text: str, counts: Any) -> str:
    first, *rest = text.split(IMAGE_PAD)
    return first + "".join(IMAGE_PAD * next(counts) + part for part in rest)
