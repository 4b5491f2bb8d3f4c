"""Changing an earlier image as the model calls it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from policy.tool import Prose, Tool, ToolParams
from workers.messages import EditPayload


class EditParams(ToolParams):
    img_index: Annotated[int, Field(ge=0)]
    prompt: Prose


TOOL = Tool(
    name="edit",
    params=EditParams,
    prompt="changes an earlier picture. Pictures are counted from 0: first the ones the user gave, then one "
    "for every tag, in the order you wrote them. Only pictures before this tag can be edited.",
    payload=lambda params, image: EditPayload.model_validate({"prompt": params["prompt"], "image": image}),
    weight=0.3,
    caption="Edited",
    image_param="img_index",
    order=40,
)
