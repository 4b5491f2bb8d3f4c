"""What the tests of metrics have in common: reading pages of metrics as Prometheus does."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 10.0
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, user: str = "") -> bytes:
    """A page, with basic authentication for `user` ("name:password") if there is one."""
    request = urllib.request.Request(url)
    if user:
        import base64

        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    with LOCAL.open(request, timeout=TIMEOUT_S) as answer:
        return answer.read()


def get_json(url: str, user: str = "") -> Any:
    return json.loads(get(url, user))


def scrape(address: str) -> dict[str, float]:
    """Every sample of a page, by name and the values of its labels in the order of their names."""
    families = text_string_to_metric_families(get(f"http://{address}/metrics").decode())
    return {
        " ".join((sample.name, *(value for _, value in sorted(sample.labels.items())))): sample.value
        for family in families
        for sample in family.samples
    }
