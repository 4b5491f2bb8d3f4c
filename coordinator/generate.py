"""`llmi generate`: one document from a prompt, and the page that shows it.

Invariants: prompt, images, author, tools and the page's place are checked before anything is started; of all
that is started only the page stays.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator.check.folders import cache as cache_problems
from coordinator.config import parts
from coordinator.config.settings import RunConfig, ServiceConfig, load_services
from coordinator.console.terminal import Notify
from coordinator.host.signals import StopSignals
from coordinator.scale.tool_workers import tool_workers
from evaluation.authors import registry as authors
from evaluation.batch.authoring import write_document
from evaluation.pages import document_page
from evaluation.pages.provenance import figure
from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from policy.document import Document, ImagePart, InvalidPart, Task, TextPart
from policy.tools import registry as tools
from workers import images
from workers.client.client import QueueClient
from workers.errors import Cause, ConfigError, Fault, InfrastructureFault, JobError
from workers.messages import Failure, Success
from workers.providers import registry as providers
from workers.storage.blobs import BlobStore
from workers.storage.cache import cache_folder


@dataclass(frozen=True)
class Order:
    """What is wanted: `images` are files, `page` is the file to write, `config` and `model` may be empty."""

    prompt: str
    images: tuple[Path, ...]
    page: Path
    seed: int
    config: str = ""
    model: str = ""


@dataclass(frozen=True)
class Prepared:
    """An order that can be carried out: its images cleaned, its configuration checked."""

    order: Order
    config: ServiceConfig
    pictures: tuple[bytes, ...]


def prepare(order: Order, console: Console) -> Prepared:
    """Check everything, and build the demo's parts where they are wanted and missing. Nothing is started.

    Raises `ConfigError`, `BuildFailed` or `Stopped`.
    """
    pictures = _pictures(order)
    config = _named(order) if order.config else _demo(order, console)
    if problems := [*tools.check(), *authors.check(config.author), *providers.check(config.tools)]:
        raise ConfigError("\n".join(problems))
    return Prepared(order, config, tuple(pictures))


class NotWritten(RuntimeError):
    """There is no document. The message says whose fault that is."""


def generate(prepared: Prepared, signals: StopSignals, say: Notify) -> Document:
    """Write the document and its page.

    Raises `NotWritten` when the author fails, `InfrastructureFault` when workers do not start, `Stopped`.
    """
    with tool_workers(prepared.config, signals, say) as config:
        say("writing")
        try:
            document, blobs = signals.run(_write(prepared, config, say))
        except JobError as error:
            whose = "the author's fault" if error.cause.fault is Fault.MODEL else "not the author's fault"
            cause = error.cause.value.replace("_", " ")
            raise NotWritten(f"no document was written: {cause} ({whose}): {error.detail}") from error
        document_page.write(prepared.order.page, document, blobs)
    return document


def summary(document: Document, page: Path) -> dict[str, Any]:
    """The document in short, for people and programs; seconds as the workers measured them."""
    return {
        "page": str(page),
        "title": document_page.title(document),
        **document.extra,
        "truncated": document.truncated,
        "text": document.text,
        "images": [_row(part) for part in document.parts if not isinstance(part, TextPart)],
    }


def _row(part: ImagePart | InvalidPart) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image": figure(part.index),
        "tool": "",
        "description": "",
        "seconds": None,
        "source": {},
    }
    if isinstance(part, InvalidPart):
        failure: Failure | None = Failure(cause=Cause.TAG_INVALID, detail=part.reason)
    else:
        assert part.outcome is not None
        failure, result = part.failure, part.outcome.result
        row |= {"tool": part.tag.source, "description": part.tag.description}
        if part.outcome.started:
            row["seconds"] = round(part.outcome.finished - part.outcome.started, 3)
        if isinstance(result, Success):
            row["source"] = result.source
    if failure is None:
        return row | {"outcome": "ok", "fault": None, "detail": ""}
    return row | {"outcome": failure.cause.value, "fault": failure.fault.value, "detail": failure.detail}


def _pictures(order: Order) -> list[bytes]:
    """What can be checked before anything is built; returns the images, cleaned."""
    if not order.prompt.strip():
        raise ConfigError("--prompt: is empty; say what the document should be about")
    folder = order.page.absolute().parent
    if order.page.is_dir():
        raise ConfigError(f"--out: {order.page} is a folder; name a file, such as document.html")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--out: may not write in {folder}; name a file in another folder, or make it")
    pictures = []
    for path in order.images:
        try:
            pictures.append(images.checked(path.read_bytes()))
        except OSError as error:
            raise ConfigError(f"--image: {path} cannot be read ({error.strerror}); name a file") from error
        except InfrastructureFault as error:
            raise ConfigError(f"--image: {path}: {error.detail}; name a PNG, JPEG or WebP file") from error
    return pictures


def _named(order: Order) -> ServiceConfig:
    """A file of services, or a run's: there the model that the run began with writes, as it was trained."""
    config = load_services(order.config)
    author = config.author
    if isinstance(config, RunConfig) and not author.model:
        author = author.model_copy(
            update={"model": config.train.model, "system_prompt": config.train.system_prompt}
        )
    if order.model:
        author = author.model_copy(update={"model": order.model})
    return config.model_copy(update={"author": author})


def _demo(order: Order, console: Console) -> ServiceConfig:
    """The demo's parts, built where missing; the tiny policy writes unless another model is named."""
    endpoint = bool(os.environ.get(AUTHOR_URL_ENV))
    own = bool(order.model) or endpoint
    if endpoint and not order.model:
        raise ConfigError(
            f"--model: is missing; give the name under which the endpoint of {AUTHOR_URL_ENV} serves it"
        )
    author = AuthorSettings(provider="openai" if endpoint else "local", model=order.model)
    demo = parts.find(parts.DEMO, "--config")
    if problems := [*cache_problems(cache_folder()), *(authors.check(author) if own else [])]:
        raise ConfigError("\n".join(problems))
    config = load_services(*demo.services(bool(order.images), not own, console))
    return config.model_copy(update={"author": author}) if own else config


async def _write(prepared: Prepared, config: ServiceConfig, say: Notify) -> tuple[Document, BlobStore]:
    blobs = BlobStore(config.blobs.url)
    inputs = [await asyncio.to_thread(blobs.put, picture) for picture in prepared.pictures]
    counts = {"asked": 0, "there": 0}

    def count(what: str) -> None:
        counts[what] += 1
        say(f"writing; {counts['there']} of {counts['asked']} pictures are there")

    async with QueueClient(
        config.queue, on_posted=lambda _: count("asked"), on_outcome=lambda _: count("there")
    ) as client:
        document = await write_document(
            authors.make_author(config.author),
            Task(question=prepared.order.prompt, inputs=tuple(inputs)),
            client=client,
            blobs=blobs,
            document_id=f"document-{uuid.uuid4().hex[:12]}",
            tools=config.tools,
            timeout_s=config.author.timeout_s
            + config.queue.wait_s
            + max(config.tools.limit_s(tool) for tool in tools.tool_names()),
            seed=prepared.order.seed,
        )
    return document, blobs
