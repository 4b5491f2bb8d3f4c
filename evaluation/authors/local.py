"""A transformers model in this process as author: causal or vision-language, by folder or hub id.

Invariants:
- One model per process, loaded at first use and kept.
- One text at a time, in its own thread, so that the event loop never blocks.
- The same seed gives the same text on the same machine.
- A text that is closed or cancelled ends at its next token.
- Tokens become text as in training (`policy.rollout.rollout`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from evaluation.authors.author import Finish, conversation
from evaluation.settings import AuthorSettings
from policy.document import Task
from policy.rollout.detokenizer import Detokenizer
from workers import images as gate
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.pixels import scaled_down

NAME = "author"
STOP_S = 10.0  # for a closed text to reach its next token
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="author")


class LocalAuthor:
    """Accepts any number of texts, from any event loop; writes one after the other."""

    def __init__(self, settings: AuthorSettings):
        self._settings = settings

    async def write(self, task: Task, images: Sequence[bytes], seed: int) -> AsyncGenerator[str | Finish]:
        """See `evaluation.authors.author.Author`."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        stop = threading.Event()

        def send(piece: str | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def work() -> bool:
            try:
                return _generate(self._settings, task, tuple(images), seed, send, stop)
            finally:
                send(None)

        deadline = loop.time() + self._settings.timeout_s
        working = _thread.submit(work)
        try:
            while (piece := await _next(pieces, deadline)) is not None:
                yield piece
            truncated = await asyncio.wrap_future(working)
        finally:
            stop.set()
            if not working.cancel() and not working.done():
                await asyncio.wait([asyncio.wrap_future(working)], timeout=STOP_S)
        yield Finish(model=self._settings.model, truncated=truncated)


async def _next(pieces: asyncio.Queue[str | None], deadline: float) -> str | None:
    try:
        async with asyncio.timeout_at(deadline):
            return await pieces.get()
    except TimeoutError as error:
        raise InfrastructureFault(Cause.TIMEOUT, "the text took too long", provider=NAME) from error


@dataclass(frozen=True)
class _Loaded:
    """A loaded model. `reader`: makes tensors from chat and pictures; a processor if the model `sees`, else a
    tokenizer. `ends`: end-of-text tokens.
    """

    model: Any
    reader: Any
    tokenizer: Any
    sees: bool
    ends: tuple[int, ...]


@functools.lru_cache(maxsize=1)
def _load(name: str) -> _Loaded:
    """Load a model. Raises `ConfigError` when transformers cannot."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    placement = {"device_map": "auto"} if torch.cuda.is_available() else {}
    try:
        sees = hasattr(AutoConfig.from_pretrained(name), "vision_config")
        reader = (AutoProcessor if sees else AutoTokenizer).from_pretrained(name)
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        model = kind.from_pretrained(name, dtype="auto", **placement).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"author.model: {name} cannot be loaded: {error}") from error
    tokenizer = reader.tokenizer if sees else reader
    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    return _Loaded(model, reader, tokenizer, sees, tuple(sorted(ends)))


def _generate(
    settings: AuthorSettings,
    task: Task,
    images: tuple[bytes, ...],
    seed: int,
    send: Callable[[str], None],
    stop: threading.Event,
) -> bool:
    """Generate the whole text in this thread; returns whether the token budget ended it."""
    import torch

    loaded = _load(settings.model)
    inputs = _inputs(loaded, settings, task, images)
    stream = _Stream(loaded.tokenizer, send)
    options: dict[str, Any] = {"do_sample": settings.temperature > 0}
    if settings.temperature > 0:
        options["temperature"] = settings.temperature
        if loaded.model.generation_config.top_k is None:
            options["top_k"] = 0  # transformers defaults to 50; training samples from all tokens
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        try:
            loaded.model.generate(
                **inputs.to(loaded.model.device),
                **options,
                max_new_tokens=settings.max_tokens,
                eos_token_id=list(loaded.ends),
                pad_token_id=loaded.tokenizer.pad_token_id,
                streamer=stream,
                stopping_criteria=[
                    lambda ids, scores, **_: torch.full((len(ids),), stop.is_set(), device=ids.device)
                ],
            )
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise InfrastructureFault(Cause.PROVIDER_DOWN, "out of GPU memory", provider=NAME) from error
    return stream.last not in loaded.ends


def _inputs(loaded: _Loaded, settings: AuthorSettings, task: Task, images: tuple[bytes, ...]) -> Any:
    if images and not loaded.sees:
        raise ConfigError(f"author.model: {settings.model} reads no images; name a vision-language model")
    chat = conversation(task, len(images), system_prompt=settings.system_prompt)
    thinking = {} if settings.enable_thinking is None else {"enable_thinking": settings.enable_thinking}
    text = loaded.reader.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **thinking)
    if not loaded.sees:
        return loaded.reader(text, return_tensors="pt", add_special_tokens=False)
    pictures = [scaled_down(gate.rgb(image), settings.max_image_pixels) for image in images]
    return loaded.reader(text=[text], images=pictures or None, return_tensors="pt")


class _Stream:
    """Receives tokens from `generate` (`transformers.generation.streamers.BaseStreamer`): first the prompt's,
    then one at a time.
    """

    def __init__(self, tokenizer: Any, send: Callable[[str], None]):
        decode = functools.partial(
            tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        self._text = Detokenizer(decode)
        self._send = send
        self._prompt = True
        self.last: int | None = None

    def put(self, value: Any) -> None:
        if self._prompt:
            self._prompt = False
            return
        ids = value.flatten().tolist()
        self.last = ids[-1]
        self._emit(self._text.feed(ids))

    def end(self) -> None:
        self._emit(self._text.close())

    def _emit(self, piece: str) -> None:
        if piece:
            self._send(piece)
