"""Typed settings of evaluation: the sections "author" and "rubric" of the configuration.

Invariants: unknown keys are refused; keys of services are named by environment variable and never stand
here; an environment variable with an address wins over the file.
"""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from rewards.settings import TokensField
from workers.settings import LocalPath, PlainUrl, Settings, section

AUTHOR_URL_ENV = "LLMI_AUTHOR_BASE_URL"
RUBRIC_URL_ENV = "RUBRIC_JUDGE_BASE_URL"


class AuthorSettings(Settings):
    """The model that writes documents outside of training.

    `openai`: the model served at any OpenAI-compatible endpoint (`base_url`, up to and including /v1;
    LLMI_AUTHOR_BASE_URL wins), read as it streams. `local`: the model folder or hub id `model`, in this
    process, by transformers. `system_prompt`: whether the tags are explained to the model, as in training.
    `max_tokens_field`: the field in which an endpoint takes `max_tokens` (see `JudgeEndpoint`).
    """

    provider: Literal["openai", "local"] = "local"
    base_url: PlainUrl = ""
    model: LocalPath = ""
    api_key_env: str = ""
    system_prompt: bool = True
    max_tokens: int = Field(default=8192, ge=16)
    max_tokens_field: TokensField = "max_tokens"
    temperature: float = Field(default=0.7, ge=0, le=2)
    timeout_s: float = Field(default=1800.0, gt=0)
    max_image_pixels: int = Field(default=1024 * 1024, ge=28 * 28)
    enable_thinking: bool | None = None

    @classmethod
    def load(cls) -> AuthorSettings:
        return section("author", cls)

    @property
    def url(self) -> str:
        return (os.environ.get(AUTHOR_URL_ENV) or self.base_url).rstrip("/")


class RubricSettings(Settings):
    """The judge of benchmark criteria, 0, 1 or 2 each with a reason.

    `rules`: the demo's own, from words. `openai`: a model behind an OpenAI-compatible endpoint that sees
    images (`base_url`; RUBRIC_JUDGE_BASE_URL wins). `api_key_env`: the variable with its key, if it is not
    OpenAI's own, whose key is OPENAI_API_KEY. `max_tokens_field`: as for the author. LLMI-Bench was published
    with GPT-4o at temperature 0.
    """

    provider: Literal["rules", "openai"] = "rules"
    base_url: PlainUrl = "https://api.openai.com/v1"
    model: str = "gpt-4o"
    api_key_env: str = ""
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=512, ge=64)
    max_tokens_field: TokensField = "max_tokens"
    timeout_s: float = Field(default=180.0, gt=0)
    max_image_pixels: int = Field(default=28 * 28 * 1000, ge=28 * 28)
    max_images: int = Field(default=20, ge=1)

    @classmethod
    def load(cls) -> RubricSettings:
        return section("rubric", cls)

    @property
    def url(self) -> str:
        return (os.environ.get(RUBRIC_URL_ENV) or self.base_url).rstrip("/")
