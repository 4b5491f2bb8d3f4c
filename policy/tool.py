"""The contract of a tool: what the model writes in its tag, and the request that a tag becomes.

Invariants: a tool is complete when it is built, or `ConfigError` says what is missing; `payload` is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from workers.errors import ConfigError
from workers.messages import BlobRef, Message

Params = Mapping[str, str | int]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Prose = Annotated[str, Field(max_length=8000), AfterValidator(_not_blank)]
Query = Annotated[str, Field(max_length=2000), AfterValidator(_not_blank)]
Code = Annotated[str, Field(max_length=100_000), AfterValidator(_not_blank)]


class ToolParams(Message):
    """Base of a tool's parameters. Fields are strings or integers; a field `code` is read as source code."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True)
class Tool:
    """One tool.

    name: the tag's `source`, and the name of the job and of its queue.
    params: the parameters that a tag must have.
    prompt: the description of the tool in the system prompt, after its parameters.
    payload: the job's payload for a tag's parameters and the image it changes (None without `image_param`).
        A `pydantic.ValidationError` counts as the model's fault (`bad_params`).
    weight: its weight in the tools score, relative to those of the other tools that a task requires.
    caption: the label of its image on a page, such as "Found".
    image_param: the parameter that numbers the image to change; "" for a tool that changes none.
    code_budget: its jobs share the document's `tools.code.budget_s`.
    order: place in the system prompt; equal ones by name.
    """

    name: str
    params: type[ToolParams]
    prompt: str
    payload: Callable[[Params, BlobRef | None], BaseModel]
    weight: float
    caption: str
    image_param: str = ""
    code_budget: bool = False
    order: int = 100

    def __post_init__(self) -> None:
        problems = [f"{name} is empty" for name in ("name", "prompt", "caption") if not getattr(self, name)]
        fields = self.params.model_fields
        if not fields:
            problems.append("params has no field")
        problems += [
            f"params.{name} is neither str nor int"
            for name, field in fields.items()
            if field.annotation not in (str, int)
        ]
        if self.weight <= 0:
            problems.append("weight must be above 0")
        if self.image_param and self.image_param not in fields:
            problems.append(f"image_param {self.image_param!r} is not in params")
        if problems:
            raise ConfigError(f"tool {self.name!r}: {'; '.join(problems)}")

    @property
    def signature(self) -> str:
        """The parameters as the system prompt shows them, such as `{'query': TEXT}`."""
        kinds = {str: "TEXT", int: "NUMBER"}
        shown = (
            f"'{name}': {kinds[field.annotation]}"  # type: ignore[index]
            for name, field in self.params.model_fields.items()
        )
        return f"{{{', '.join(shown)}}}"
