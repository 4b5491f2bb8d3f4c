"""An images service and a judge of OpenAI's shape: `python -m llmi.load.testbed.provider PORT`.

Invariant: the answer follows from the request alone, so that a repeated request gets the same picture and the
same verdict.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from llmi.load.simulated.noise import noise_png
from workers.process.interpreter import PYTHON
from workers.process.parent_death import start_child

LOOPBACK = "127.0.0.1"
START_S = 30.0
POLL_S = 0.02


class Provider:
    """The service as a process of its own, which can be killed, stopped and started again on its port."""

    def __init__(self, log: Path):
        self._log = log
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}/v1"

    def start(self) -> None:
        """Start it and wait until it listens. Raises `RuntimeError` if it does not."""
        command = [*PYTHON, "-m", "llmi.load.testbed.provider", str(self._port)]
        self._process = start_child(command, log=self._log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection((LOOPBACK, self._port), timeout=1.0):
                    return
            except OSError:
                time.sleep(POLL_S)
        raise RuntimeError(f"the images service did not start; see {self._log}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop it with SIGSTOP, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signum)


def verdict(text: str, axes: dict[str, Any]) -> dict[str, int]:
    """Scores from 1 to 5 that follow from `text`."""
    return {axis: 1 + int(hashlib.sha256(f"{axis} {text}".encode()).hexdigest(), 16) % 5 for axis in axes}


async def _images(request: web.Request) -> web.Response:
    fields: Any = await (request.json() if request.content_type == "application/json" else request.post())
    text = f"{request.path} {fields['prompt']} {fields.get('seed', '')}"
    return web.json_response({"data": [{"b64_json": base64.b64encode(noise_png(text)).decode()}]})


async def _chat(request: web.Request) -> web.Response:
    body = await request.json()
    axes = body["response_format"]["json_schema"]["schema"]["properties"]
    text = json.dumps(verdict(json.dumps(body["messages"]), axes))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return web.json_response({"model": body["model"], "choices": [choice]})


def main(port: int) -> None:
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/images/generations", _images)
    app.router.add_post("/v1/images/edits", _images)
    app.router.add_post("/v1/chat/completions", _chat)
    web.run_app(app, host=LOOPBACK, port=port, print=lambda *_: None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
