"""Merge LoRA adapters into the weights of a model folder.

Usage: `python -m coordinator.export.adapter MODEL ADAPTER`.

Invariant: the sum is computed in float32 and rounded to bfloat16 once.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText


def merge(model: Path, adapter: Path) -> None:
    """Replace the weights of `model` by those with the adapter, and remove the adapter."""
    vision = hasattr(AutoConfig.from_pretrained(model), "vision_config")
    kind = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    base = kind.from_pretrained(model, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    for weights in model.glob("model*.safetensors*"):
        weights.unlink()
    merged.to(torch.bfloat16).save_pretrained(model)
    shutil.rmtree(adapter)


if __name__ == "__main__":
    merge(Path(sys.argv[1]), Path(sys.argv[2]))
