"""Settings of evaluation: the sections "author" and "rubric" of the configuration.

Invariants:
- The configuration holds the name of an environment variable with a key, never the key.
- An environment variable with an address replaces the one in the file.
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
    """The model that writes documents outside of training."""

    provider: Literal["openai", "local"] = "local"
    """`openai`: a model at an OpenAI-compatible endpoint; its answer is streamed. `local`: a model in the
    worker's own process, by transformers."""
    base_url: PlainUrl = ""
    """The endpoint up to and including `/v1`, for the provider `openai`. `LLMI_AUTHOR_BASE_URL` replaces
    it."""
    model: LocalPath = ""
    """Name of the model at the endpoint, or a folder or hub id for the provider `local`."""
    api_key_env: str = ""
    """Environment variable with the key for the endpoint. When empty, `ARK_API_KEY` is sent to Ark's hosts,
    `OPENAI_API_KEY` to OpenAI's, and no key to any other."""
    system_prompt: bool = True
    """Begin the chat with the system prompt that explains the tags, as in training."""
    max_tokens: int = Field(default=8192, ge=16)
    """Longest document, in tokens."""
    max_tokens_field: TokensField = "max_tokens"
    """Field in which the endpoint takes `max_tokens`; see the judges."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Temperature of sampling. 0.7 is what Qwen3 models recommend."""
    timeout_s: float = Field(default=1800.0, gt=0)
    """Seconds for one document with its tools."""
    max_image_pixels: int = Field(default=1024 * 1024, ge=28 * 28)
    """Pixels of an image that the model sees; larger ones are scaled down. As in training."""
    enable_thinking: bool | None = None
    """Passed to the chat template; null leaves it to the model."""

    @classmethod
    def load(cls) -> AuthorSettings:
        return section("author", cls)

    @property
    def url(self) -> str:
        return (os.environ.get(AUTHOR_URL_ENV) or self.base_url).rstrip("/")


class RubricSettings(Settings):
    """The judge of benchmark criteria: 0, 1 or 2 for each, with a reason."""

    provider: Literal["rules", "openai"] = "rules"
    """`rules`: the demo's judge, from words, without a model. `openai`: a model behind an OpenAI-compatible
    endpoint that sees images."""
    base_url: PlainUrl = "https://api.openai.com/v1"
    """The endpoint up to and including its version. `RUBRIC_JUDGE_BASE_URL` replaces it."""
    model: str = "gpt-4o"
    """Name of the model at the endpoint. LLMI-Bench was published with GPT-4o."""
    api_key_env: str = ""
    """Environment variable with the key for the endpoint. When empty, `OPENAI_API_KEY` is sent to OpenAI's
    hosts, `ARK_API_KEY` to Ark's, and no key to any other."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Temperature of the verdict. As published for LLMI-Bench."""
    max_tokens: int = Field(default=512, ge=64)
    """Longest answer, in tokens: a score and a reason."""
    max_tokens_field: TokensField = "max_tokens"
    """Field in which the endpoint takes `max_tokens`; see the judges."""
    timeout_s: float = Field(default=180.0, gt=0)
    """Seconds for one criterion. Its time in the queue (`queue.wait_s`) is added."""
    max_image_pixels: int = Field(default=28 * 28 * 1000, ge=28 * 28)
    """Pixels of an image that the judge sees; larger ones are scaled down."""
    max_images: int = Field(default=20, ge=1)
    """Images that the judge sees at most."""

    @classmethod
    def load(cls) -> RubricSettings:
        return section("rubric", cls)

    @property
    def url(self) -> str:
        return (os.environ.get(RUBRIC_URL_ENV) or self.base_url).rstrip("/")
