"""What a provider hands to its tool: one checked image and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import JsonValue


@dataclass(frozen=True)
class Made:
    """`image`: PNG or JPEG bytes that passed `workers.images`. `source`: shown to readers; never holds
    a key.
    """

    image: bytes
    source: dict[str, JsonValue] = field(default_factory=dict)
