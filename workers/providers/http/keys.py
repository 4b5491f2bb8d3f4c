"""Keys of outside services, read from the environment when a job needs them.

Invariants:
- A key is in the environment and in the header or parameter that carries it, nowhere else.
- A service's own key is sent to that service's hosts. The configuration may name another host.
"""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

from workers.errors import Cause, InfrastructureFault

SERP_KEY_ENV = "SERP_API_KEY"
GENERATE_URL_ENV = "QWEN_IMAGE_SERVER_URL"
EDIT_URL_ENV = "QWEN_EDIT_SERVER_URL"
ARK_KEY_ENV = "ARK_API_KEY"
OPENAI_KEY_ENV = "OPENAI_API_KEY"

ARK_DOMAINS = ("volces.com", "bytepluses.com")
OPENAI_HOST = "api.openai.com"


def service_name(provider: str, url: str) -> str:
    """Name of an outside service: its provider and its host."""
    parts = urlsplit(url)
    return f"{provider} at {parts.netloc.rpartition('@')[2] or 'nowhere'}"


def required_key(name: str, provider: str) -> str:
    """The key in environment variable `name`. Raises `InfrastructureFault(AUTH)` naming the variable when it
    is unset.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        raise InfrastructureFault(Cause.AUTH, f"environment variable {name} is not set", provider=provider)
    return value


def redacted(words: str, key: str) -> str:
    """`words` without `key` in any form that services repeat: plain, URL-encoded, in JSON."""
    if not key:
        return words
    for form in (key, quote(key, safe=""), key.replace("/", "\\/")):
        words = words.replace(form, "***")
    return words


def is_ark(url: str) -> bool:
    """Whether an address is Volcengine Ark's: a host of its domains, not one that merely ends like them."""
    host = urlsplit(url).hostname or ""
    return host in ARK_DOMAINS or host.endswith(tuple(f".{domain}" for domain in ARK_DOMAINS))


def is_openai(url: str) -> bool:
    return urlsplit(url).hostname == OPENAI_HOST


def key_env(named: str, url: str) -> str:
    """The environment variable with the key for `url`: the one `named` in the configuration, else the
    service's own; "" for any other server (vLLM, vLLM-Omni, SGLang), which needs no key.
    """
    if named:
        return named
    if is_ark(url):
        return ARK_KEY_ENV
    return OPENAI_KEY_ENV if is_openai(url) else ""
