"""What is said, before a run starts, about providers that lack something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.providers import keys, preflight
from workers.settings import ToolSettings

NAMES = (keys.SERP_KEY_ENV, keys.GENERATE_URL_ENV, keys.EDIT_URL_ENV, "ARK_API_KEY", "OTHER_KEY")
ARK = {
    "provider": "openai",
    "base_url": "https://ark.cn-beijing.volces.com/api/v3",
    "model": "doubao-seedream-5-0-260128",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "captions.jsonl").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")


def problems(**changed: Any) -> list[str]:
    sound: dict[str, Any] = {
        "search": {"library": "pictures"},
        "diffusion": {"model": "model"},
        "edit": {"model": "model"},
    }
    return preflight.check(ToolSettings.model_validate(sound | changed))


def test_nothing_is_said_when_nothing_is_missing() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changed", "field", "cure"),
    [
        ({"search": {"provider": "serpapi"}}, "tools.search.provider", "SERP_API_KEY"),
        ({"search": {"library": "nowhere"}}, "tools.search.library", "captions.jsonl"),
        ({"diffusion": ARK}, "tools.diffusion.api_key_env", "ARK_API_KEY"),
        ({"edit": ARK | {"api_key_env": "OTHER_KEY"}}, "tools.edit.api_key_env", "OTHER_KEY"),
        ({"diffusion": {"provider": "openai", "model": "m"}}, "tools.diffusion.base_url", "http://"),
        (
            {"edit": {"provider": "openai", "base_url": "http://127.0.0.1:8091/v1"}},
            "tools.edit.model",
            "endpoint",
        ),
        ({"edit": {"provider": "qwen_server"}}, "tools.edit.base_url", "QWEN_EDIT_SERVER_URL"),
        ({"diffusion": {"model": ".cache/nothing"}}, "tools.diffusion.model", "model_index.json"),
        ({"edit": {"model": "model", "size": "2K"}}, "tools.edit.size", "1024x768"),
        ({"edit": {"model": "model", "size": "100x100"}}, "tools.edit.size", "multiples of 16"),
    ],
)
def test_what_is_missing_is_named_with_its_field_and_its_cure(changed: Any, field: str, cure: str) -> None:
    (said,) = problems(**changed)
    assert said.startswith(field)
    assert cure in said


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"search": {"provider": "serpapi"}}, "SERP_API_KEY"),
        ({"diffusion": ARK}, "ARK_API_KEY"),
        ({"diffusion": {"provider": "qwen_server"}}, "QWEN_IMAGE_SERVER_URL"),
    ],
)
def test_what_the_environment_holds_is_not_missing(
    changed: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:8091")
    assert problems(**changed) == []


def test_a_hub_id_and_a_server_without_a_key_are_fine() -> None:
    own = {"provider": "openai", "base_url": "http://127.0.0.1:8091/v1", "model": "m"}
    assert problems(diffusion={"model": "Qwen/Qwen-Image"}, edit=own) == []
