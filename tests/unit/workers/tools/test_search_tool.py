"""The search job: what a worker does before the first request, and what it refuses to look for."""

from __future__ import annotations

import json
import socket
import time

import pytest

from llmi.demo.library import build_library
from workers.errors import Cause, InfrastructureFault, ModelFault
from workers.jobs import JOBS, JobContext
from workers.messages import Request, SearchPayload
from workers.settings import CONFIG_ENV
from workers.storage.blobs import BlobStore
from workers.tools import by_provider


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """`configured(search settings)` makes them the ones of this process."""

    def write(**settings):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"tools": {"search": settings}}))
        monkeypatch.setenv(CONFIG_ENV, str(path))

    return write


def context(tmp_path, query):
    payload = SearchPayload(query=query)
    request = Request.make("search", payload, timeout_s=30)
    return payload, JobContext(request, BlobStore(str(tmp_path / "blobs")))


def test_warming_up_makes_no_search(configured, monkeypatch):
    """The original validated its key by a live search in the constructor."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        configured(provider="serpapi", base_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("SERP_API_KEY", "key")
        JOBS["search"].warm()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_warming_up_without_a_key_names_the_variable(configured, monkeypatch):
    configured(provider="serpapi")
    monkeypatch.delenv("SERP_API_KEY", raising=False)
    with pytest.raises((InfrastructureFault, ValueError), match="SERP_API_KEY"):
        JOBS["search"].warm()


def test_a_blank_query_is_the_models_fault(configured, tmp_path):
    configured(provider="library", library=str(tmp_path / "library"))
    with pytest.raises(ModelFault) as error:
        by_provider.search(*context(tmp_path, "   "))
    assert error.value.cause is Cause.BAD_PARAMS


def test_a_hit_is_stored_with_its_source(configured, tmp_path):
    configured(provider="library", library=str(build_library(tmp_path / "library")))
    JOBS["search"].warm()
    payload, ctx = context(tmp_path, "landmarks in Kyoto")
    made = by_provider.search(payload, ctx)
    assert ctx.blobs.get(made.images[0])
    assert "Kyoto" in made.source["caption"]
    assert made.source["query"] == "landmarks in Kyoto"
    assert ctx.request.deadline > time.time()
