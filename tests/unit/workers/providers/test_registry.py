"""The providers by name: built-in ones, those of packages, their defaults, and the pool of their workers."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from workers import extensions
from workers.errors import ConfigError
from workers.providers import registry
from workers.providers.provider import Provider, ProviderImage, ProviderRequest
from workers.settings import ImageModelSettings, SearchSettings, Settings, ToolSettings


class Options(Settings):
    index: str
    safe: bool = True


class Searx(Provider[SearchSettings]):
    """A provider of another package."""

    options_model = Options

    def service(self) -> str:
        return f"searx at {self.settings.base_url}"

    def call(self, request: ProviderRequest) -> ProviderImage:
        return ProviderImage(b"", {"index": self.options.index})  # type: ignore[attr-defined]


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`packaged(name, value)` is the one entry point of `llmi.search_providers`."""
    extensions.loaders.cache_clear()

    def install(name: str, value: str = f"{__name__}:Searx") -> None:
        points = {"llmi.search_providers": [EntryPoint(name, value, "llmi.search_providers")]}
        monkeypatch.setattr(extensions, "entry_points", lambda group: points.get(group, []))

    yield install
    extensions.loaders.cache_clear()


def test_built_in_providers_are_the_modules_of_their_folder() -> None:
    assert registry.names("search") == ("library", "serpapi")
    assert registry.names("image") == ("diffusers", "openai", "qwen_server")
    for kind in ("search", "image"):
        for name in registry.names(kind):
            assert issubclass(registry.provider_class(kind, name), Provider)


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^tools\.search\.provider: .* known are library, serpapi"):
        registry.make("search", SearchSettings(provider="serper"))


def test_a_package_adds_a_provider_by_an_entry_point(packaged: Any) -> None:
    packaged("searx")
    settings = SearchSettings(provider="searx", options={"index": "images"})
    provider = registry.make("search", settings)
    assert provider.call(ProviderRequest("a fox", 0.0)).source == {"index": "images"}
    assert "searx" in registry.names("search")
    assert "searx" not in registry.names("image")


@pytest.mark.parametrize(("options", "problem"), [({}, "index"), ({"index": "images", "lang": "en"}, "lang")])
def test_options_are_validated_by_the_provider(packaged: Any, options: dict, problem: str) -> None:
    packaged("searx")
    with pytest.raises(ConfigError, match=rf"^tools\.search\.options\.{problem}: "):
        registry.make("search", SearchSettings(provider="searx", options=options))


def test_a_name_exists_once(packaged: Any) -> None:
    packaged("serpapi")
    with pytest.raises(ConfigError, match="has the name of another one"):
        registry.names("search")


def test_a_module_without_a_provider_is_refused(packaged: Any) -> None:
    packaged("searx", f"{__name__}:Options")
    with pytest.raises(ConfigError, match="no Provider class"):
        registry.make("search", SearchSettings(provider="searx"))


def test_a_default_belongs_to_its_provider(packaged: Any) -> None:
    """Regression: the search settings had SerpAPI's address as their default, whatever the provider."""
    packaged("searx")
    other = registry.make("search", SearchSettings(provider="searx", options={"index": "i"}))
    assert other.settings.base_url == ""
    assert registry.make("search", SearchSettings(provider="serpapi")).service() == "serpapi at serpapi.com"
    assert registry.make("diffusion", ImageModelSettings(provider="openai")).settings.model == ""


def test_each_tool_has_the_default_pipeline_that_fits_it() -> None:
    made = registry.of_tools(ToolSettings())
    assert made["diffusion"].settings.pipeline == "QwenImagePipeline"
    assert made["edit"].settings.pipeline == "QwenImageEditPlusPipeline"
    named = ImageModelSettings(pipeline="QwenImageEditPipeline")
    assert registry.make("edit", named).settings.pipeline == "QwenImageEditPipeline"


REMOTE = {"provider": "openai", "base_url": "http://images:1/v1", "model": "m"}


@pytest.mark.parametrize(
    ("queues", "tools", "pool"),
    [
        (["diffusion", "edit"], {}, "prefork"),
        (["diffusion", "edit"], {"diffusion": REMOTE, "edit": REMOTE}, "threads"),
        (["diffusion", "edit"], {"diffusion": REMOTE}, "prefork"),
        (["diffusion", "code"], {"diffusion": REMOTE}, "prefork"),
        (["search", "judge_text"], {}, "threads"),
        (["code"], {}, "prefork"),
    ],
)
def test_only_a_provider_that_holds_a_model_takes_a_process_per_job(
    queues: list[str], tools: dict, pool: str
) -> None:
    assert registry.pool_type(queues, ToolSettings.model_validate(tools)) == pool
