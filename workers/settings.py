"""Typed settings of queue, blob store and tools. One JSON file serves every process of a run.

The file is the resolved configuration of the run, and `LLMI_CONFIG` is its path. Each package reads its own
section with `section`.

Invariants:
- Unknown keys are refused.
- Secrets are in the environment, never in the file.
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
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from workers.errors import ConfigError
from workers.queues import QUEUES
from workers.redis_url import canonical

CONFIG_ENV = "LLMI_CONFIG"
REDIS_ENV = "LLMI_REDIS_URL"
JAIL_S = 30.0  # added to `wall_s`: for restarting the sandbox and storing the figures


class Settings(BaseModel):
    """Strict, immutable base of every settings section.

    The docstring under a field is its description in docs/configuration.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BreakerSettings(Settings):
    """The circuit breaker of each provider: when it opens, and what its requests do meanwhile."""

    failures: int = Field(default=5, ge=1)
    """Failures in a row that open the circuit. A few failures are chance; five are an outage."""
    open_s: float = Field(default=5.0, gt=0)
    """Seconds until the first trial request (half-open). Each trial that fails doubles it."""
    max_open_s: float = Field(default=60.0, gt=0)
    """Longest time, in seconds, between two trial requests; at least `open_s`. With a minute, a provider that
    recovers is used again soon."""
    hang_s: float = Field(default=20.0, ge=0)
    """Seconds that a request without an answer must have lasted at its deadline to count as a failure. A
    shorter one may only have been posted late."""
    while_open: Literal["wait", "mask"] = "wait"
    """`wait`: requests stay in their queue, each until its own deadline, so that a short outage costs no
    sample. `mask`: they fail at once and mask their samples."""

    @model_validator(mode="after")
    def _ordered(self) -> BreakerSettings:
        if self.max_open_s < self.open_s:
            raise ValueError(f"max_open_s {self.max_open_s} is less than open_s {self.open_s}")
        return self


class QueueSettings(Settings):
    """The broker, and how requests are delivered."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    """`redis://` or `rediss://` URL of the broker, without a password. A URL in `LLMI_REDIS_URL` replaces it.
    Where neither is given, a run starts a Redis of its own."""
    lease_s: float = Field(default=15.0, gt=0)
    """Seconds after which the lease of a worker without a heartbeat expires and its jobs are requeued. It
    covers a few lost heartbeats."""
    wait_s: float = Field(default=600.0, gt=0)
    """Seconds that a request may wait in its queue before it fails as an infrastructure failure. The run time
    of its job is added to it."""
    result_ttl_s: int = Field(default=86_400, gt=0)
    """Seconds that Redis keeps an outcome. A day leaves time to resume a run that died."""
    recorded_ttl_s: int = Field(default=600, gt=0)
    """Seconds that Redis keeps an outcome that the ledger of a run has. It bounds the memory of Redis, and
    leaves time to write the ledger to disk."""
    max_attempts: int = Field(default=3, ge=1)
    """Number of processes or workers that may be lost with a request before it is quarantined as
    `worker_lost`."""
    max_waiting: int = Field(default=20_000, ge=1)
    """Requests that one queue holds before clients wait to post. It bounds the memory of Redis."""
    breaker: BreakerSettings = BreakerSettings()
    """The circuit breaker of each provider."""

    @field_validator("redis_url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        """Canonical form of the URL. Raises `ValueError` if it has a password."""
        url = canonical(url)
        if urlsplit(url).password:
            raise ValueError(f"must not hold a password; put the whole URL into {REDIS_ENV}")
        return url

    @property
    def url(self) -> str:
        """The URL to connect to. `LLMI_REDIS_URL` wins over the file, so that no file holds a password.
        Raises `ConfigError` if it has no canonical form (`workers.redis_url`).
        """
        try:
            return canonical(os.environ.get(REDIS_ENV) or self.redis_url)
        except ValueError as error:
            raise ConfigError(f"queue.redis_url (or {REDIS_ENV}): {error}") from None


def plain_url(url: str) -> str:
    """Validate an http(s) URL without user or password; empty is allowed. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password; name the key's environment variable instead")
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("must be an http(s) URL such as http://host:8000/v1")
    return url


PlainUrl = Annotated[str, AfterValidator(plain_url)]


def expanded(path: str) -> str:
    """Expand `~` and `$VARIABLES` in a local path or `file://` URL. Raises `ValueError` for unknown ones."""
    if "://" in path and not path.startswith("file://"):
        return path
    scheme = "file://" if path.startswith("file://") else ""
    text = os.path.expandvars(path.removeprefix(scheme))
    if unset := re.search(r"\$\{?([A-Za-z_]\w*)", text):
        raise ValueError(f"{path!r} names the variable {unset[1]}, which is not set; export it")
    text = os.path.expanduser(text)
    if text.startswith("~"):
        raise ValueError(f"{path!r} names the home folder of an unknown user; write the path")
    return scheme + text


LocalPath = Annotated[str, AfterValidator(expanded)]


class MetricsSettings(Settings):
    """Where Prometheus finds metrics."""

    bind: str = "127.0.0.1"
    """Address on which each process of the run serves its metrics, on a free port. The default is reached
    from this machine only."""
    port: int = Field(default=0, ge=0, le=65_535)
    """Port of the coordinator, which also lists the other endpoints; 0 for a free one, so that two runs do
    not collide."""


class BlobSettings(Settings):
    """The store of images."""

    url: LocalPath = "blobs"
    """A folder (a relative one is in the run's folder) or any fsspec URL. Every node must reach it."""


class ProviderSettings(Settings):
    """What the providers of all tools have."""

    provider: str
    """Name of the provider."""
    base_url: PlainUrl = ""
    """Address of the service. Empty for the provider's own."""
    allow_private_addresses: bool = False
    """Fetch images from private addresses too. Off, since an answer could name an internal service."""
    trust_proxy: bool = False
    """Let the proxy of the environment resolve host names of images, on machines that cannot. Only for a
    proxy that refuses internal addresses itself."""
    options: dict[str, JsonValue] = {}
    """Settings of a provider from another package, which validates them."""


class SearchSettings(ProviderSettings):
    """The image search."""

    provider: str = "library"
    """`library`: a local folder of captioned images, which needs no network. `serpapi`: Google Images through
    SerpAPI; the key is in `SERP_API_KEY`. Packages add others."""
    library: LocalPath = ""
    """Folder of captioned images, for the provider `library`. Empty for `.cache/library`."""
    max_candidates: int = Field(default=5, ge=1, le=50)
    """Results that are tried in order until one is a good image. Few, since each is a download."""


class ImageModelSettings(ProviderSettings):
    """The image models of the tools diffusion and edit."""

    provider: str = "diffusers"
    """`diffusers`: a pipeline in the worker's own process. `openai`: any OpenAI-compatible images endpoint
    (vLLM-Omni, SGLang, Volcengine Ark, OpenAI). `qwen_server`: the image server of the original LLM-I, also
    named by `QWEN_IMAGE_SERVER_URL` (diffusion) and `QWEN_EDIT_SERVER_URL` (edit). Packages add others."""
    model: LocalPath = ""
    """Folder or hub id of a diffusers pipeline (empty: `.cache/tiny-image`), or the model's name at the
    endpoint."""
    pipeline: str = ""
    """Class of the diffusers pipeline. The one of edit must take an image. Empty for `QwenImagePipeline`, and
    for edit `QwenImageEditPlusPipeline`."""
    api_key_env: str = ""
    """Environment variable with the key for `base_url`. When empty, `ARK_API_KEY` is sent to Ark's hosts,
    `OPENAI_API_KEY` to OpenAI's, and no key to any other."""
    size: str = "1024x1024"
    """Width and height of a new image, in pixels."""
    steps: int = Field(default=50, ge=1)
    """Denoising steps; 50 is Qwen-Image's own default."""
    guidance: float = Field(default=4.0, ge=0)
    """Scale of classifier-free guidance; 4 is Qwen-Image's own default."""
    negative_prompt: str = " "
    """What an image should not show. A blank switches guidance on without excluding anything."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a diffusers pipeline runs; `auto`: a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of a diffusers pipeline; `auto`: bfloat16 on a GPU, float32 on a CPU."""


class CodeSettings(Settings):
    """The limits and the jail of the model's code. A job that exceeds a limit is a model failure.

    A machine is too busy when code is not done after ten times `wall_s`, or when the job's time limit ends.
    That is an infrastructure failure, unless the code has used half of `cpu_s` by then.
    """

    cpu_s: float = Field(default=10.0, gt=0)
    """Seconds of CPU time of one job: many times what a chart takes, and the most that a loop costs."""
    wall_s: float = Field(default=15.0, gt=0)
    """Seconds that one job may compute, sleep and wait. Time in which other processes kept it from a CPU does
    not count. The time limit of the job is longer, so that code that sleeps exceeds this limit first."""
    budget_s: float = Field(default=60.0, gt=0)
    """Seconds that the code of all tags of one document may run together; at least `wall_s`. A tag reserves
    `wall_s` until it ends; one for which too little is left fails as a model failure."""
    memory_mb: int = Field(default=1024, ge=256)
    """Memory of one job, in MiB."""
    output_mb: int = Field(default=16, ge=1, le=32)
    """Most MiB of one job's figures as PNG, and of the files that it writes."""
    max_figures: int = Field(default=8, ge=1, le=1000)
    """Figures that are kept of one job, the first ones."""
    max_pixels: int = Field(default=16_000_000, ge=10_000, le=50_000_000)
    """Pixels of all kept figures together; further figures are dropped."""
    require: tuple[
        Literal["landlock", "seccomp", "netns", "private_root", "processes", "unprivileged", "files"], ...
    ] = (
        *("landlock", "seccomp"),
        *("netns", "private_root", "processes"),
        "unprivileged",
        "files",
    )
    """Layers of the jail without which a worker refuses to run code: the inner layer (`landlock`, `seccomp`),
    the outer one (`netns`, `private_root`, `processes`), a user without privileges, and a folder with a limit
    that the kernel enforces (`files`; without it, code that writes a file fails). All by default."""

    @model_validator(mode="after")
    def _a_job_fits(self) -> CodeSettings:
        if self.budget_s < self.wall_s:
            raise ValueError(
                f"budget_s {self.budget_s:g} is less than wall_s {self.wall_s:g}, so that no code would run; "
                "raise it, or lower wall_s"
            )
        return self


class ToolSettings(Settings):
    """The four tools."""

    max_requests: int = Field(default=11, ge=1)
    """Tags of one document that are posted; further ones are invalid. Raise it where prompts ask for more
    images."""
    search: SearchSettings = SearchSettings()
    """The image search."""
    diffusion: ImageModelSettings = ImageModelSettings()
    """The model that makes an image."""
    edit: ImageModelSettings = ImageModelSettings()
    """The model that changes an image."""
    code: CodeSettings = CodeSettings()
    """The jail that draws charts."""
    options: dict[str, dict[str, JsonValue]] = {}
    """Settings of tools from other packages, by tool name. Each tool validates its own."""

    def limit_s(self, tool: str) -> float:
        """The time limit of a job of `tool`, in seconds."""
        most = QUEUES[tool].limit_s
        return max(most, self.code.wall_s + JAIL_S) if tool == "code" else most


S = TypeVar("S", bound=Settings)
WORKER_SECTIONS = ("blobs", "tools", "reward", "judges", "author", "rubric")


@functools.cache
def _document(path: str) -> dict[str, object]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{CONFIG_ENV}: {path} does not exist; point it at a run's config.json") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{CONFIG_ENV}: {path} is not JSON: {error}") from error


def fingerprint(document: Mapping[str, object]) -> str:
    """A hash of the sections that workers use: equal for configurations under which workers do the same."""
    sections = {name: document.get(name) for name in WORKER_SECTIONS}
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()[:16]


def own_fingerprint() -> str:
    """The fingerprint of this process's configuration."""
    path = os.environ.get(CONFIG_ENV)
    return fingerprint(_document(path) if path else {})


def section(name: str, model: type[S]) -> S:
    """One section of the run's configuration, validated. Its defaults if the file or the section is missing.

    Raises `ConfigError`.
    """
    path = os.environ.get(CONFIG_ENV)
    raw = _document(path).get(name, {}) if path else {}
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
