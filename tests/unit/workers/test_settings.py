"""Settings of tools and queue: URLs without secrets, valid forms."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rewards.settings import JudgeEndpoint
from workers.settings import ImageModelSettings, QueueSettings, SearchSettings


@pytest.mark.parametrize("settings", [ImageModelSettings, SearchSettings, JudgeEndpoint])
def test_a_base_url_holds_no_password(settings):
    with pytest.raises(ValidationError, match="must not hold a user or password"):
        settings(base_url="https://user:secret@images.example/v1")


@pytest.mark.parametrize("settings", [ImageModelSettings, SearchSettings, JudgeEndpoint])
@pytest.mark.parametrize("url", ["images.example/v1", "ftp://images.example", "http://"])
def test_a_base_url_is_an_http_url(settings, url):
    with pytest.raises(ValidationError, match="must be an http"):
        settings(base_url=url)


def test_a_redis_url_in_a_file_holds_no_password():
    with pytest.raises(ValidationError, match="LLMI_REDIS_URL"):
        QueueSettings(redis_url="redis://:secret@host:6379/0")
