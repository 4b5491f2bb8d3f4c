"""The protocol of a provider: the interface of a service, model or library that produces a tool's image.

Invariants: a provider owns its defaults, so a setting that the configuration leaves empty never carries a
value of another provider; `check` and the constructor touch no network and load no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from PIL import Image
from pydantic import JsonValue, ValidationError

from workers.errors import ConfigError
from workers.settings import ProviderSettings, Settings

S = TypeVar("S", bound=ProviderSettings)


@dataclass(frozen=True)
class ProviderRequest:
    """One call.

    `text`: the query or the prompt. `deadline`: Unix seconds. `image`: the RGB image to change, None to make
    a new one. `cancelled`: whether the request was cancelled; for providers that can stop early.
    """

    text: str
    deadline: float
    seed: int = 0
    image: Image.Image | None = None
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class ProviderImage:
    """`image`: PNG or JPEG bytes that passed `workers.images`. `source`: shown to readers; never holds a
    key.
    """

    image: bytes
    source: dict[str, JsonValue] = field(default_factory=dict)


class NoOptions(Settings):
    """For providers that take no options."""


class Provider(ABC, Generic[S]):
    """One provider as one tool is configured to use it. Subclasses set the class attributes they need.

    holds_model: it keeps a model in the worker's process. Its jobs then run one per process (Celery's
        prefork pool), and no cancellation ends that process. Jobs of all other providers share one process
        (Celery's thread pool).
    options_model: validates `options` of the settings; the result is `self.options`.
    environment: the environment variables that it may read, listed by `llmi doctor`.
    """

    holds_model: ClassVar[bool] = False
    options_model: ClassVar[type[Settings]] = NoOptions
    environment: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: S, tool: str):
        """`tool`: search, diffusion or edit. Raises `ConfigError` for options that do not validate."""
        empty = {name: value for name, value in self.defaults(tool).items() if not getattr(settings, name)}
        self.settings = settings.model_copy(update=empty)
        self.tool = tool
        try:
            self.options = self.options_model.model_validate(settings.options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (self.field, "options", *first["loc"]))
            raise ConfigError(f"{where}: {first['msg']} (provider {settings.provider})") from error

    @classmethod
    def defaults(cls, tool: str) -> Mapping[str, Any]:
        """Values of the settings that the configuration leaves empty."""
        return {}

    @property
    def field(self) -> str:
        """The section of the configuration, such as `tools.search`."""
        return f"tools.{self.tool}"

    def service(self) -> str:
        """The outside service, such as `serpapi at serpapi.com`, which the circuit breaker counts failures
        of; "" for none.
        """
        return ""

    def check(self) -> list[str]:
        """What is missing before a run, each with its field and what to do."""
        return []

    def warm(self) -> None:
        """Load what a process needs before its first request. Raises when the provider is not usable."""

    @abstractmethod
    def call(self, request: ProviderRequest) -> ProviderImage:
        """The image for one request. Blocking, at most until the request's deadline.

        Raises `ModelFault` for what the model wrote (a refused prompt, a search without a hit) and
        `InfrastructureFault` for all else.
        """
