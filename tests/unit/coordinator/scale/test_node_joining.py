"""A node that cannot join is refused; the message names option, variable or queue and holds no password."""

from __future__ import annotations

import pytest

from coordinator.config.settings import ServiceConfig
from coordinator.scale.nodes.joining import locate, prepare, same_settings
from coordinator.scale.nodes.needs import lacking, longest_s
from workers.errors import ConfigError
from workers.queues import QUEUES

NAMES = (
    "SERP_API_KEY",
    "LLM_JUDGE_BASE_URL",
    "MLLM_JUDGE_BASE_URL",
    "QWEN_IMAGE_SERVER_URL",
    "QWEN_EDIT_SERVER_URL",
    "LLMI_AUTHOR_BASE_URL",
    "RUBRIC_JUDGE_BASE_URL",
    "OPENAI_API_KEY",
    "LLMI_REDIS_URL",
)
SERVICES = {
    "tools": {
        "search": {"provider": "serpapi"},
        "diffusion": {"provider": "qwen_server"},
        "edit": {"provider": "qwen_server"},
    },
    "judges": {"text": {"provider": "openai"}, "image": {"provider": "openai"}},
    "author": {"provider": "openai", "model": "m"},
    "rubric": {"provider": "openai"},
}


@pytest.fixture(autouse=True)
def no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_each_queue_lacks_its_own_key_or_address(monkeypatch):
    config = ServiceConfig.model_validate(SERVICES)
    needed = {
        "search": "SERP_API_KEY",
        "diffusion": "QWEN_IMAGE_SERVER_URL",
        "edit": "QWEN_EDIT_SERVER_URL",
        "judge_text": "LLM_JUDGE_BASE_URL",
        "judge_image": "MLLM_JUDGE_BASE_URL",
        "evaluate": "LLMI_AUTHOR_BASE_URL",
        "judge_rubric": "OPENAI_API_KEY",
    }
    for queue, variable in needed.items():
        found = lacking(config)
        assert variable in found[queue]
        monkeypatch.setenv(variable, "http://host:8000/v1")
        assert set(found) - set(lacking(config)) == {queue}
    assert lacking(config) == {}


def joining(redis_url: str = "", config: str = "", node: str = "n"):
    return prepare(redis_url=redis_url, config=config, queues=[], role="all", node=node)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "no Redis is named: give --redis .* or set LLMI_REDIS_URL"),
        ({"redis_url": "http://:hunter2@host"}, "not a Redis URL"),
        ({"redis_url": "redis://:hunt/er2@host:6379"}, "not a Redis URL"),
        ({"redis_url": "redis://:hunter2@127.0.0.1:1/0"}, "no Redis answers at redis://127.0.0.1:1/0"),
        ({"redis_url": "redis://127.0.0.1:1", "node": "a b"}, "--node: 'a b'"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml: no such configuration"),
    ],
)
def test_a_wrong_option_is_named_with_a_hint(monkeypatch, wish, said):
    monkeypatch.setenv("LLMI_REDIS_URL", "")  # so that what is set meanwhile is put back
    with pytest.raises(ConfigError, match=said) as caught:
        joining(**wish)
    assert "hunt" not in str(caught.value)


def test_a_job_may_take_as_long_as_the_configuration_lets_it():
    config = ServiceConfig.model_validate({"judges": {"text": {"timeout_s": 500}}})
    assert longest_s("judge_text", config) == 500
    assert longest_s("judge_image", config) == QUEUES["judge_image"].limit_s
    assert longest_s("code", config) == QUEUES["code"].limit_s


def test_leaving_a_redis_that_is_named_wrongly_says_so():
    with pytest.raises(ConfigError, match="not a Redis URL"):
        locate("redis://host:port/0", "n")


def test_settings_are_alike_when_workers_do_the_same_by_them():
    config = ServiceConfig.model_validate(SERVICES)
    renamed = config.model_copy(update={"name": "other"})
    assert same_settings(config, renamed)
    assert not same_settings(config, config.model_copy(update={"tools": ServiceConfig().tools}))
