"""Typed settings of queue, blob store and tools; one JSON file serves every process of a run.

The file is the resolved run configuration; its path is in `LLMI_CONFIG`, and each package reads its own
section with `section`. Invariants: unknown keys are refused; secrets are never in the file but in the
environment.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from workers.errors import ConfigError
from workers.queues import QUEUES
from workers.redis_url import canonical

CONFIG_ENV = "LLMI_CONFIG"
REDIS_ENV = "LLMI_REDIS_URL"
JAIL_S = 30.0  # beside the code's own time: for restarting the jail and storing what was drawn


class Settings(BaseModel):
    """Strict, immutable base of every settings section."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BreakerSettings(Settings):
    """When a provider that keeps failing is left alone, and what becomes of its requests. Times in seconds.

    After `failures` in a row it is left alone for `open_s`; then one request tries it, and each time that
    fails too, it is left alone for twice as long, at most `max_open_s`. A provider that said nothing until a
    request's deadline has failed if it had `hang_s`. `while_open`: requests wait in their queue, each until
    its own deadline, or fail at once and mask their samples.
    """

    failures: int = Field(default=5, ge=1)
    open_s: float = Field(default=5.0, gt=0)
    max_open_s: float = Field(default=60.0, gt=0)
    hang_s: float = Field(default=20.0, ge=0)
    while_open: Literal["wait", "mask"] = "wait"

    @model_validator(mode="after")
    def _ordered(self) -> BreakerSettings:
        if self.max_open_s < self.open_s:
            raise ValueError(f"max_open_s {self.max_open_s} is less than open_s {self.open_s}")
        return self


class QueueSettings(Settings):
    """Broker and delivery. `lease_s`: a job whose worker is silent this long is given to another;
    `wait_s`: how long a request may wait in its queue before it fails as infrastructure's fault, beside the
    time that its job may then run; `max_waiting`: requests that one queue holds before posters must wait;
    `result_ttl_s`: how long an outcome can be asked for.
    """

    redis_url: str = "redis://127.0.0.1:6379/0"
    lease_s: float = Field(default=15.0, gt=0)
    wait_s: float = Field(default=600.0, gt=0)
    result_ttl_s: int = Field(default=86_400, gt=0)
    max_attempts: int = Field(default=3, ge=1)
    max_waiting: int = Field(default=20_000, ge=1)
    breaker: BreakerSettings = BreakerSettings()

    @field_validator("redis_url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        """In the one form that every client reads alike."""
        url = canonical(url)
        if urlsplit(url).password:
            raise ValueError(f"must not hold a password; put the whole URL into {REDIS_ENV}")
        return url

    @property
    def url(self) -> str:
        """The URL to connect to: `LLMI_REDIS_URL` wins, so that a password never enters a file. Raises
        `ConfigError` for one that not every client reads alike.
        """
        try:
            return canonical(os.environ.get(REDIS_ENV) or self.redis_url)
        except ValueError as error:
            raise ConfigError(f"queue.redis_url (or {REDIS_ENV}): {error}") from None


def plain_url(url: str) -> str:
    """An http(s) URL without user or password, or an empty text; anything else is refused."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password; name the key's environment variable instead")
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("must be an http(s) URL such as http://host:8000/v1")
    return url


PlainUrl = Annotated[str, AfterValidator(plain_url)]


def expanded(path: str) -> str:
    """A path or URL with `~` and `$VARIABLES` replaced, once, so that what is checked is what is used."""
    if "://" in path and not path.startswith("file://"):
        return path
    scheme = "file://" if path.startswith("file://") else ""
    text = os.path.expandvars(path.removeprefix(scheme))
    if unset := re.search(r"\$\{?([A-Za-z_]\w*)", text):
        raise ValueError(f"{path!r} names the variable {unset[1]}, which is not set; export it")
    text = os.path.expanduser(text)
    if text.startswith("~"):
        raise ValueError(f"{path!r} names the home folder of no user; write the path")
    return scheme + text


LocalPath = Annotated[str, AfterValidator(expanded)]


class MetricsSettings(Settings):
    """Where Prometheus finds metrics. `bind`: the address that every process serves its own on, each on a
    free port; `port`: the coordinator's, which also lists all the others (0: a free one).
    """

    bind: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)


class BlobSettings(Settings):
    """Where images lie: a folder or any fsspec URL."""

    url: LocalPath = "blobs"


class SearchSettings(Settings):
    """`library`: a local folder of captioned images; `serpapi`: Google Images through SerpAPI
    (SERP_API_KEY). `trust_proxy`: the proxy of the environment refuses internal addresses by itself, and so
    may resolve the names of pictures' hosts, for machines that cannot resolve them.
    """

    provider: Literal["library", "serpapi"] = "library"
    library: LocalPath = ".cache/library"
    base_url: PlainUrl = "https://serpapi.com"
    max_candidates: int = Field(default=5, ge=1, le=50)
    allow_private_addresses: bool = False
    trust_proxy: bool = False


class ImageModelSettings(Settings):
    """A diffusion or edit provider.

    `diffusers`: the pipeline at `model` (folder or hub id) in the worker's own process. `openai`: any
    OpenAI-compatible images endpoint at `base_url` (vLLM-Omni, SGLang, Volcengine Ark, OpenAI).
    `qwen_server`: a server of the original's shape at `base_url` (QWEN_IMAGE_SERVER_URL /
    QWEN_EDIT_SERVER_URL). `api_key_env`: the variable whose key `base_url` is sent; without it, ARK_API_KEY
    goes to Ark's hosts, OPENAI_API_KEY to OpenAI's, and no key to any other. `trust_proxy`: as for search,
    for pictures that an answer names by URL.
    """

    provider: Literal["diffusers", "openai", "qwen_server"] = "diffusers"
    model: LocalPath = ".cache/tiny-image"
    pipeline: str = "QwenImagePipeline"
    base_url: PlainUrl = ""
    api_key_env: str = ""
    size: str = "1024x1024"
    steps: int = Field(default=50, ge=1)
    guidance: float = Field(default=4.0, ge=0)
    negative_prompt: str = " "
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    allow_private_addresses: bool = False
    trust_proxy: bool = False


class CodeSettings(Settings):
    """Limits of one job. Of its figures it keeps the first `max_figures`, as many as have `max_pixels`
    together; as PNG they may take `output_mb`, and so may its files. `require`: what of the jail must hold,
    or the worker refuses to run code: all of its inner layer (landlock, seccomp), of its outer one, that
    the code runs as an unprivileged user, and that the kernel bounds its folder (files; without, it has none,
    and code that writes a file fails), unless a configuration says less.

    `budget_s`: how long the code of all tags of one document may run together. A tag is posted while what is
    left covers `wall_s`, which is reserved for it until it ends; further ones fail as the model's fault.

    `wall_s` counts what the code computes, sleeps and waits for itself, and not the time in which others kept
    it from a CPU. The job's own time limit is longer, so code that sleeps always runs into `wall_s` first.
    Running into a limit is the model's fault. A machine on which code is not done after ten times `wall_s`,
    or when the job's time is over, is too busy; that is not the model's fault, unless the code had half of
    `cpu_s` by then.
    """

    cpu_s: float = Field(default=10.0, gt=0)
    wall_s: float = Field(default=15.0, gt=0)
    budget_s: float = Field(default=60.0, gt=0)
    memory_mb: int = Field(default=1024, ge=256)
    output_mb: int = Field(default=16, ge=1, le=32)
    max_figures: int = Field(default=8, ge=1, le=1000)
    max_pixels: int = Field(default=16_000_000, ge=10_000, le=50_000_000)
    require: tuple[
        Literal["landlock", "seccomp", "netns", "private_root", "processes", "unprivileged", "files"], ...
    ] = (
        *("landlock", "seccomp"),
        *("netns", "private_root", "processes"),
        "unprivileged",
        "files",
    )

    @model_validator(mode="after")
    def _a_job_fits(self) -> CodeSettings:
        if self.budget_s < self.wall_s:
            raise ValueError(
                f"budget_s {self.budget_s:g} is less than wall_s {self.wall_s:g}, so that no code would run; "
                "raise it, or lower wall_s"
            )
        return self


class ToolSettings(Settings):
    """The four tools. `max_requests`: how many tags of one document are posted; further ones are invalid.
    Raise it where prompts ask for more images.
    """

    max_requests: int = Field(default=11, ge=1)
    search: SearchSettings = SearchSettings()
    diffusion: ImageModelSettings = ImageModelSettings()
    edit: ImageModelSettings = ImageModelSettings(pipeline="QwenImageEditPlusPipeline")
    code: CodeSettings = CodeSettings()

    def limit_s(self, tool: str) -> float:
        """How long a job of `tool` may run."""
        most = QUEUES[tool].limit_s
        return max(most, self.code.wall_s + JAIL_S) if tool == "code" else most

    @model_validator(mode="before")
    @classmethod
    def _an_edit_pipeline(cls, data: object) -> object:
        """An edit section that names no pipeline means the default of edit, which takes an image."""
        if not isinstance(data, dict):
            return data
        given = data.get("edit")
        if not isinstance(given, dict) or "pipeline" in given:
            return data
        return {**data, "edit": {**given, "pipeline": cls.model_fields["edit"].default.pipeline}}


S = TypeVar("S", bound=Settings)
WORKED_BY = ("blobs", "tools", "reward", "judges", "author", "rubric")


@functools.cache
def _document(path: str) -> dict[str, object]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{CONFIG_ENV}: {path} does not exist; point it at a run's config.json") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{CONFIG_ENV}: {path} is not JSON: {error}") from error


def fingerprint(document: Mapping[str, object]) -> str:
    """The same for two resolved configurations by which workers do the same; never mind Redis and the run."""
    worked_by = {name: document.get(name) for name in WORKED_BY}
    return hashlib.sha256(json.dumps(worked_by, sort_keys=True).encode()).hexdigest()[:16]


def own_fingerprint() -> str:
    """Of the configuration that this process works by."""
    path = os.environ.get(CONFIG_ENV)
    return fingerprint(_document(path) if path else {})


def section(name: str, model: type[S]) -> S:
    """One section of the run's configuration, validated; its defaults where the file or the section is
    absent.
    """
    path = os.environ.get(CONFIG_ENV)
    raw = _document(path).get(name, {}) if path else {}
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
