"""The configuration of a model with the same architecture and sizes that a CPU trains in seconds. Pure.

Invariants: the vocabulary and the size of an attention head stay; a size never grows; numbers are float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAYERS = 2
HEADS = 2
HIDDEN = 128  # where the heads' size does not follow from it
EXPERTS, EXPERTS_USED = 4, 2
WIDTH = 64  # of an expert; vLLM's CPU kernels need a multiple of 32

_LIMITS = {
    "num_hidden_layers": LAYERS,
    "depth": LAYERS,
    "max_window_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_heads": HEADS,
    "num_key_value_heads": 1,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": EXPERTS_USED,
    "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": WIDTH,
}
_HEADS = ("num_attention_heads", "num_heads")
_LAYERS = ("num_hidden_layers", "depth")
_LAYER_NUMBERS = ("fullatt_block_indexes", "deepstack_visual_indexes", "mlp_only_layers")


def shrunk(config: Mapping[str, Any]) -> dict[str, Any]:
    """A transformers configuration (`to_dict()`) with few layers, heads and experts, and small layers."""
    small = _part(config)
    for name in ("text_config", "vision_config"):
        if isinstance(config.get(name), Mapping):
            small[name] = _part(config[name])
    if "vision_config" in small and "out_hidden_size" in small["vision_config"]:
        small["vision_config"]["out_hidden_size"] = small.get("text_config", small)["hidden_size"]
    return small


def _part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text or the vision part."""
    small = {
        name: min(value, _LIMITS[name]) if name in _LIMITS and isinstance(value, int) else value
        for name, value in config.items()
    }
    if "dtype" in config:
        small["dtype"] = "float32"
    heads = next((config[name] for name in _HEADS if config.get(name)), None)
    if heads and config.get("hidden_size"):
        small["hidden_size"] = _hidden(config, heads)
        if "intermediate_size" in config:
            small["intermediate_size"] = min(config["intermediate_size"], 2 * small["hidden_size"])
    layers = next((config[name] for name in _LAYERS if config.get(name)), None)
    for name, value in config.items():
        if name in _LAYER_NUMBERS and value:
            small[name] = [number for number in value if number < LAYERS] or [LAYERS - 1]
        elif isinstance(value, list) and layers and len(value) == layers:
            small[name] = value[:LAYERS]
    return small


def _hidden(config: Mapping[str, Any], heads: int) -> int:
    size = config["hidden_size"]
    if config.get("head_dim"):
        return min(size, HIDDEN)
    return min(heads, HEADS) * (size // heads)
