"""Image generation as the model calls it."""

from __future__ import annotations

from policy.tool import Prose, Tool, ToolParams
from workers.messages import DiffusionPayload


class DiffusionParams(ToolParams):
    prompt: Prose


TOOL = Tool(
    name="diffusion",
    params=DiffusionParams,
    prompt="paints a new picture. For stories, styles, concepts and anything imagined.",
    payload=lambda params, _image: DiffusionPayload.model_validate(params),
    weight=0.1,
    caption="Generated",
    order=20,
)
