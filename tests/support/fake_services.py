"""Outside services, simulated by a local server that answers as their documentation says, errors included.

Every answer can be scripted: `services.script["/search"] = [...]` holds (status, headers, body) triples for
the first calls; later calls succeed. `services.seen` lists the calls: path, query, body.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from PIL import Image

KEY = "a-very-secret-key"


def png(colour: Any = "teal", size: tuple[int, int] = (96, 64), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Seen:
    """One received call. `form`: the fields of a multipart body, files as bytes."""

    path: str
    query: dict[str, str]
    authorization: str
    body: dict[str, Any]
    form: dict[str, Any]


@dataclass
class Chat:
    """What `/v1/chat/completions` streams: an event for each of `pieces`, then `finish` (None: none is sent).

    `cut`: bytes in a packet (0: an event in each); `then`: whether it ends the answer, drops the connection
    or stalls.
    """

    pieces: list[str] = field(default_factory=list)
    finish: str | None = "stop"
    model: str = "served-author"
    cut: int = 0
    then: Literal["end", "drop", "stall"] = "end"
    events: list[str] = field(default_factory=list)  # sent as they are, after the pieces

    def packets(self) -> list[bytes]:
        deltas = [
            ({"role": "assistant", "content": ""}, None),
            *(({"content": p}, None) for p in self.pieces),
        ]
        if self.finish is not None:
            deltas.append(({}, self.finish))
        chunks = [
            {
                "object": "chat.completion.chunk",
                "model": self.model,
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
            }
            for delta, finish in deltas
        ]
        events = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks] + self.events
        if self.finish is not None:
            events.append("[DONE]")
        lines = [f"data: {event}\n\n".encode() for event in events]
        whole = b"".join(lines)
        return [whole[at : at + self.cut] for at in range(0, len(whole), self.cut)] if self.cut else lines


@dataclass
class Judge:
    """The answer of `/v1/chat/completions` to a request with a JSON schema, after `delay_s`: `answer`, or
    `verdict` of the request's body. Any other `status` than 200 is an error.
    """

    answer: str = '{"reason": "seen", "score": 2}'
    verdict: Callable[[dict[str, Any]], str] | None = None
    status: int = 200
    delay_s: float = 0.0


@dataclass
class FakeServices:
    """The server in its own thread; `url` is its address. `results` is what a search finds."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    script: dict[str, list[tuple[int, dict[str, str], Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    results: list[dict[str, Any]] = field(default_factory=list)
    gone: int = 0  # calls of /slow.png, or of a stalled chat, whose client went away before the answer
    chat: Chat = field(default_factory=Chat)
    judge: Judge = field(default_factory=Judge)

    def calls(self, path: str) -> list[Seen]:
        return [one for one in self.seen if one.path == path]

    def __enter__(self) -> FakeServices:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._record])
        app.router.add_get("/search", self._search)
        for prefix in ("/v1", "/api/v3"):
            app.router.add_post(f"{prefix}/images/generations", self._images)
            app.router.add_post(f"{prefix}/images/edits", self._images)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/generate/", self._qwen)
        app.router.add_post("/edit/", self._qwen)
        app.router.add_get("/picture.png", self._picture)
        app.router.add_get("/broken.png", self._broken)
        app.router.add_get("/slow.png", self._slow)
        app.router.add_get("/drip.png", self._drip)
        app.router.add_get("/large.png", self._large)
        app.router.add_get("/to", self._redirect)
        # A handler is cancelled when its client goes away: how a test sees that a slow download was ended.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body, form = {}, {}
        if request.content_type == "application/json":
            body = await request.json()
        elif request.content_type.startswith("multipart/"):
            form = {k: v.file.read() if hasattr(v, "file") else v for k, v in (await request.post()).items()}
        self.seen.append(
            Seen(request.path, dict(request.query), request.headers.get("Authorization", ""), body, form)
        )
        if self.script[request.path]:
            status, headers, answer = self.script[request.path].pop(0)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            return web.Response(status=status, headers=headers, text=text, content_type="application/json")
        return await handler(request)

    async def _search(self, request: web.Request) -> web.Response:
        if request.query.get("api_key") != KEY:
            return web.json_response(
                {"error": "Invalid API key. Your API key should be here: ..."}, status=401
            )
        if not self.results:
            status = {"status": "Success"}
            error = "Google hasn't returned any results for this query."
            return web.json_response({"search_metadata": status, "error": error})
        return web.json_response({"search_metadata": {"status": "Success"}, "images_results": self.results})

    async def _images(self, request: web.Request) -> web.Response:
        return web.json_response({"created": 1, "data": [{"b64_json": base64.b64encode(png()).decode()}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if "response_format" in (body := await request.json()):
            await asyncio.sleep(self.judge.delay_s)
            said = self.judge.verdict(body) if self.judge.verdict else self.judge.answer
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"model": "served-judge", "choices": [choice]}, status=self.judge.status)
        chat = self.chat
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for packet in chat.packets():
            await response.write(packet)
            await asyncio.sleep(0)
        if chat.then == "drop":
            assert request.transport is not None
            request.transport.abort()
        if chat.then == "stall":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.gone += 1
                raise
        return response

    async def _qwen(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "success", "images": [base64.b64encode(png()).decode()]})

    async def _picture(self, request: web.Request) -> web.Response:
        return web.Response(body=png("orange"), content_type="image/png")

    async def _broken(self, request: web.Request) -> web.Response:
        return web.Response(body=png()[:60], content_type="image/png")

    async def _slow(self, request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        return await self._picture(request)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        """A byte now and then: no single read times out, only the whole does."""
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in png():
            await response.write(bytes([byte]))
            await asyncio.sleep(0.2)
        return response

    async def _large(self, request: web.Request) -> web.StreamResponse:
        """A body above every limit, without a Content-Length."""
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(64):
            await response.write(b"\0" * 2**20)
        return response

    async def _redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["url"]})
