"""Settings of rewards and judges: the sections "reward" and "judges" of the configuration.

Invariants:
- The configuration holds the name of an environment variable with a key, never the key.
- `check` finds missing values without a connection.
"""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rewards import formulas
from rewards.axes import PUBLISHED
from rewards.formula import Formula
from workers.extensions import unknown
from workers.providers.http import endpoint
from workers.settings import PlainUrl, Settings, section

TEXT_URL_ENV = "LLM_JUDGE_BASE_URL"
IMAGE_URL_ENV = "MLLM_JUDGE_BASE_URL"
TokensField = Literal["max_tokens", "max_completion_tokens"]


class RewardSettings(Settings):
    """How verdicts become a reward."""

    formula: str = "grounded"
    """The reward formula. `llmi`: as published. `grounded`: better documents never score worse. Installed
    packages may add more (entry-point group `llmi.formulas`)."""
    vl: bool = False
    """Whether the policy reads images; must agree with `train.modality`. The published weights of the text
    judge differ."""

    @field_validator("formula")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in (known := formulas.names()):
            raise ValueError(unknown("reward formula", name, known, formulas.GROUP))
        return name

    @classmethod
    def load(cls) -> RewardSettings:
        return section("reward", cls)


class JudgeEndpoint(Settings):
    """One judge."""

    provider: Literal["rules", "openai"] = "rules"
    """`rules`: the demo's judge, from words and pixels, without a model. `openai`: a model behind an
    OpenAI-compatible endpoint."""
    base_url: PlainUrl = ""
    """The endpoint up to and including its version, such as `http://host:8000/v1`. `LLM_JUDGE_BASE_URL`
    (text) and `MLLM_JUDGE_BASE_URL` (image) replace it."""
    model: str = ""
    """Name under which the endpoint serves the model. By default the published judge."""
    api_key_env: str = ""
    """Environment variable with the key for the endpoint. When empty, `ARK_API_KEY` is sent to Ark's hosts,
    `OPENAI_API_KEY` to OpenAI's, and no key to any other."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Temperature of the verdict. 0, so that the same document gets the same verdict. OpenAI's reasoning
    models take only 1."""
    max_tokens: int = Field(default=64, ge=16)
    """Longest answer, in tokens. A verdict is short JSON; a model that thinks needs more."""
    max_tokens_field: TokensField = "max_tokens"
    """Field in which the endpoint takes `max_tokens`. OpenAI's reasoning models take only
    `max_completion_tokens`."""
    timeout_s: float = Field(default=180.0, gt=0)
    """Seconds for one verdict. Its time in the queue (`queue.wait_s`) is added."""
    max_image_pixels: int = Field(default=28 * 28 * 1000, ge=28 * 28)
    """Pixels of an image that the judge sees; larger ones are scaled down. The default is 1000 patches of
    Qwen2.5-VL."""
    max_images: int = Field(default=20, ge=1)
    """Images that the judge sees at most. As published."""
    enable_thinking: bool | None = None
    """Passed to the chat template; null leaves it to the model."""
    expected_scores: bool = True
    """Request log-probabilities, and grade with the expected score of each axis, such as 3.85, where the
    endpoint gives them; with the integer elsewhere. The formula `llmi` reads integers only, as published."""

    @property
    def name(self) -> str:
        """The model's name, or "rules"."""
        return self.model if self.provider == "openai" else "rules"


class JudgeSettings(Settings):
    """The two judges of a document."""

    text: JudgeEndpoint = JudgeEndpoint(model="Qwen/Qwen3-235B-A22B-Instruct-2507")
    """The judge that reads the text."""
    image: JudgeEndpoint = JudgeEndpoint(model="Qwen/Qwen2.5-VL-72B-Instruct")
    """The judge that also sees the images."""
    reasons: bool = False
    """Ask each judge model for one sentence per axis, in a second request after its verdict. The ledger and
    the run's page have them. Scores do not depend on it; a judge is busy for longer."""

    @model_validator(mode="before")
    @classmethod
    def _default_models(cls, data: object) -> object:
        """A section that names no model means the published one."""
        if not isinstance(data, dict):
            return data
        filled = dict(data)
        for judge in ("text", "image"):
            given = filled.get(judge)
            if isinstance(given, dict) and "model" not in given:
                filled[judge] = {**given, "model": cls.model_fields[judge].default.model}
        return filled

    @classmethod
    def load(cls) -> JudgeSettings:
        return section("judges", cls)

    @property
    def text_url(self) -> str:
        """The text judge's endpoint; LLM_JUDGE_BASE_URL replaces the field."""
        return _url(os.environ.get(TEXT_URL_ENV) or self.text.base_url)

    @property
    def image_url(self) -> str:
        """The image judge's endpoint; MLLM_JUDGE_BASE_URL replaces the field."""
        return _url(os.environ.get(IMAGE_URL_ENV) or self.image.base_url)


def _url(url: str) -> str:
    """The URL without a trailing slash; /v1 is added to a bare host."""
    trimmed = url.rstrip("/")
    return f"{trimmed}/v1" if trimmed and not urlsplit(trimmed).path else trimmed


def check(judges: JudgeSettings, reward: RewardSettings | None = None) -> list[str]:
    """The problems of the judges' settings, each with what to do. No network.

    `reward`: its formula may read axes that the rule-based judge cannot grade.
    """
    problems = _without_rules(judges, formulas.get(reward.formula)) if reward is not None else []
    for name, judge, url, variable in (
        ("text", judges.text, judges.text_url, TEXT_URL_ENV),
        ("image", judges.image, judges.image_url, IMAGE_URL_ENV),
    ):
        if judge.provider == "openai":
            section = f"judges.{name}"
            problems += endpoint.problems(section, url, judge.model, judge.api_key_env, url_env=variable)
    return problems


def _without_rules(judges: JudgeSettings, formula: Formula) -> list[str]:
    """One problem for each axis that its judge, by rules, cannot grade."""
    by_rules = {"text": judges.text.provider == "rules", "image": judges.image.provider == "rules"}
    return [
        f"judges.{axis.judge}.provider: the rules cannot grade the axis {axis.name!r} of the formula "
        f"{formula.name}; name a judge model"
        for axis in formula.axes
        if axis not in PUBLISHED and axis.by_rules is None and by_rules[axis.judge]
    ]
