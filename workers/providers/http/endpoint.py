"""Checks of a configured endpoint before a run: its address, its model and its key. Touches no network.

Each check returns the problems, with the field and what to do; empty when there is none.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from workers.providers.http import keys


def address_problems(field: str, url: str) -> list[str]:
    """`field`: the setting, and the environment variable that may stand in for it."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname:
        return []
    # The URL is not shown: one from the environment may hold a password.
    wrong = "is not an http(s) URL" if url else "is empty"
    return [f"{field} {wrong}; set it to one such as http://host:8000/v1"]


def model_problems(field: str, model: str) -> list[str]:
    """A model must be named."""
    return (
        [] if model else [f"{field} is empty; set it to the name under which the endpoint serves the model"]
    )


def key_problems(field: str, variable: str) -> list[str]:
    """The environment `variable` must hold a key; "" for none."""
    if not variable or os.environ.get(variable, "").strip():
        return []
    return [f"{field}: set the environment variable {variable}"]


def problems(section: str, url: str, model: str, api_key_env: str, *, url_env: str = "") -> list[str]:
    """All three checks of the endpoint in `section`. `url_env`: the environment variable that may hold its
    URL.
    """
    alternative = f" (or environment variable {url_env})" if url_env else ""
    return [
        *address_problems(f"{section}.base_url{alternative}", url),
        *model_problems(f"{section}.model", model),
        *key_problems(f"{section}.api_key_env", keys.key_env(api_key_env, url)),
    ]
