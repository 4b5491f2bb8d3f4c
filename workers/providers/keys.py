"""Keys and addresses of outside services, read from the environment when a job needs them.

Invariant: a key lives in the environment and in the header or parameter that carries it, nowhere else.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from workers.errors import Cause, InfrastructureFault
from workers.settings import ImageModelSettings

SERP_KEY_ENV = "SERP_API_KEY"
GENERATE_URL_ENV = "QWEN_IMAGE_SERVER_URL"
EDIT_URL_ENV = "QWEN_EDIT_SERVER_URL"

ARK_HOSTS = ("volces.com", "bytepluses.com")
OPENAI_HOST = "api.openai.com"


def required(name: str, provider: str) -> str:
    """The key in environment variable `name`. Raises `InfrastructureFault(AUTH)` naming the variable when it
    is unset.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        raise InfrastructureFault(Cause.AUTH, f"environment variable {name} is not set", provider=provider)
    return value


def needs_key(settings: ImageModelSettings) -> bool:
    """Public endpoints want a key; a server of one's own (vLLM-Omni, SGLang) usually runs without."""
    host = urlsplit(settings.base_url).hostname or ""
    return host == OPENAI_HOST or host.endswith(ARK_HOSTS)


def qwen_url(settings: ImageModelSettings, env: str) -> str:
    """Base URL of a server of the original's shape, from the settings or else from `env`; "" when neither is
    set.
    """
    return (settings.base_url or os.environ.get(env, "")).strip().rstrip("/")
