"""Markdown fences around text of a model."""

from __future__ import annotations

_FENCE = "```"


def unfenced(text: str) -> str:
    """The text without a fence around all of it; other text unchanged. Linear in the length."""
    body = text.strip()
    if len(body) < 2 * len(_FENCE) or not (body.startswith(_FENCE) and body.endswith(_FENCE)):
        return text
    info, line, inner = body[len(_FENCE) : -len(_FENCE)].partition("\n")
    if not line or not all(character.isalnum() or character in "_+-" for character in info.rstrip(" \t")):
        return text
    return inner.rstrip(" \t").removesuffix("\n")
