"""A judge endpoint on loopback: `decide` answers each call, `seen` lists them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

GOOD = {
    "text": 4,
    "image_tags": 3,
    "image_quality": 5,
    "task_relevance": 4,
    "text_image_relevance": 3,
    "reason": "seen",
    "score": 2,
}
Answer = tuple[int, Any]


def refused(message: str = "no", status: int = 400, **more: Any) -> Answer:
    return status, {"error": {"message": message, **more}}


def said(content: object, finish: str = "stop", **message: Any) -> Answer:
    choice = {"index": 0, "message": {"content": content, **message}, "finish_reason": finish}
    return 200, {"model": "served-judge", "choices": [choice]}


def verdict(body: dict[str, Any]) -> Answer:
    axes = body["response_format"]["json_schema"]["schema"]["required"]
    return said(json.dumps({axis: GOOD[axis] for axis in axes}))


@dataclass
class Judge:
    """`decide` answers a call's body; `seen` lists the bodies."""

    url: str = ""
    decide: Callable[[dict[str, Any]], Answer] = verdict
    seen: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def judge_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    """Both judges of the configuration are this server."""
    state = Judge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.seen.append(body)
            status, answer = state.decide(body)
            data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    for variable in ("LLM_JUDGE_BASE_URL", "MLLM_JUDGE_BASE_URL", "RUBRIC_JUDGE_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        configure(folder, monkeypatch, state)
        yield state
        http.shutdown()
        thread.join()


def configure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, state: Judge, reasons: bool = False, **fields: Any
) -> None:
    """Write the section "judges"; `fields` change both judges."""
    one = {"provider": "openai", "base_url": state.url, "model": "judge", **fields}
    judges = {"text": one, "image": one, "reasons": reasons}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"judges": judges}))
    monkeypatch.setenv("LLMI_CONFIG", str(folder / "config.json"))
