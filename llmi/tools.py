"""The tools that the demo and the benchmarks use: those that come with the product."""

from __future__ import annotations

from typing import Literal

Source = Literal["search", "diffusion", "code", "edit"]
SOURCES: tuple[Source, ...] = ("search", "diffusion", "code", "edit")
