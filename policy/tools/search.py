"""Image search as the model calls it."""

from __future__ import annotations

from policy.tool import Query, Tool, ToolParams
from workers.messages import SearchPayload


class SearchParams(ToolParams):
    query: Query


TOOL = Tool(
    name="search",
    params=SearchParams,
    prompt="finds a real photograph. For actual places, people, objects and events, and for whatever must be "
    "authentic or current.",
    payload=lambda params, _image: SearchPayload.model_validate(params),
    weight=0.2,
    caption="Found",
    order=10,
)
