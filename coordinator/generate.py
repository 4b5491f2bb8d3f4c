"""`llmi generate`: write one document from a prompt, and the page that shows it.

Invariants: prompt, images, author, tools and the place of the page are checked before anything is started;
nothing but the page is left at the end.
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
from coordinator.console.terminal import Notify, notifier
from coordinator.export.author import with_checkpoint
from coordinator.host.signals import StopSignals
from coordinator.scale.own_workers import tool_workers
from evaluation.authors import author as authors
from evaluation.batch.authoring import write_document
from evaluation.pages import document_page
from evaluation.pages.provenance import figure
from evaluation.settings import AUTHOR_URL_ENV, AuthorSettings
from policy import tools
from policy.document import Document, ImagePart, InvalidPart, Task, TextPart
from workers import images
from workers.client.client import QueueClient
from workers.errors import Cause, ConfigError, InfrastructureFault, JobError
from workers.messages import HIGH, Failure, Success
from workers.providers import registry as providers
from workers.storage.blobs import BlobStore
from workers.storage.cache import cache_folder


@dataclass(frozen=True)
class GenerateOptions:
    """The options of the command. `images`: files; `page`: the file to write; `config`, `model`: may be
    empty."""

    prompt: str
    images: tuple[Path, ...]
    page: Path
    seed: int
    config: str = ""
    model: str = ""


@dataclass(frozen=True)
class Prepared:
    """Checked options: `images` are re-encoded, `config` has author and tools."""

    options: GenerateOptions
    config: ServiceConfig
    images: tuple[bytes, ...]


def prepare(options: GenerateOptions, console: Console) -> Prepared:
    """Check everything, and build missing parts of the demo when they are used. Nothing is started.

    Raises `ConfigError`, `BuildFailed`, `ExportFailed` or `Stopped`.
    """
    checked = _checked_images(options)
    config = _configured(options, console) if options.config else _demo(options, console)
    if problems := [*tools.check(), *authors.check(config.author), *providers.check(config.tools)]:
        raise ConfigError("\n".join(problems))
    return Prepared(options, config, tuple(checked))


class GenerationFailed(RuntimeError):
    """No document was written. The message has the cause and the fault."""


def generate(prepared: Prepared, signals: StopSignals, notify: Notify) -> Document:
    """Write the document and its page.

    Raises `GenerationFailed` when the author fails, `InfrastructureFault` when workers do not start,
    `Stopped`.
    """
    with tool_workers(prepared.config, signals, notify) as config:
        notify("writing")
        try:
            document, blobs = signals.run(_write(prepared, config, notify))
        except JobError as error:
            cause = f"{error.cause.value.replace('_', ' ')} ({error.cause.fault.value})"
            raise GenerationFailed(f"no document was written: {cause}: {error.detail}") from error
        document_page.write(prepared.options.page, document, blobs)
    return document


def summary(document: Document, page: Path) -> dict[str, Any]:
    """The document as the fields of --json. Seconds are those measured by the workers."""
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


def _checked_images(options: GenerateOptions) -> list[bytes]:
    """Check prompt, page and images; return the re-encoded images."""
    if not options.prompt.strip():
        raise ConfigError("--prompt: is empty; describe the document")
    folder = options.page.absolute().parent
    if options.page.is_dir():
        raise ConfigError(f"--out: {options.page} is a folder; name a file, such as document.html")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--out: may not write in {folder}; name a file in another folder, or make it")
    checked = []
    for path in options.images:
        try:
            checked.append(images.checked(path.read_bytes()))
        except OSError as error:
            raise ConfigError(f"--image: {path} cannot be read ({error.strerror}); name a file") from error
        except InfrastructureFault as error:
            raise ConfigError(f"--image: {path}: {error.detail}; name a PNG, JPEG or WebP file") from error
    return checked


def _configured(options: GenerateOptions, console: Console) -> ServiceConfig:
    """The configuration of --config. For a run's own, the author is the model that the run started from."""
    config = load_services(options.config)
    author = config.author
    if isinstance(config, RunConfig) and not author.model:
        author = author.model_copy(
            update={"model": config.train.model, "system_prompt": config.train.system_prompt}
        )
    if options.model:
        author = author.model_copy(update={"model": options.model})
    return config.model_copy(update={"author": with_checkpoint(author, notifier(console))})


def _demo(options: GenerateOptions, console: Console) -> ServiceConfig:
    """The demo's configuration, its parts built where missing. The author is the tiny policy unless --model
    or an endpoint is given."""
    endpoint = bool(os.environ.get(AUTHOR_URL_ENV))
    own = bool(options.model) or endpoint
    if endpoint and not options.model:
        raise ConfigError(
            f"--model: is missing; give the name under which the endpoint of {AUTHOR_URL_ENV} serves it"
        )
    author = AuthorSettings(provider="openai" if endpoint else "local", model=options.model)
    author = with_checkpoint(author, notifier(console))
    demo = parts.find(parts.DEMO, "--config")
    if problems := [*cache_problems(cache_folder()), *(authors.check(author) if own else [])]:
        raise ConfigError("\n".join(problems))
    config = load_services(*demo.services(bool(options.images), not own, console))
    return config.model_copy(update={"author": author}) if own else config


async def _write(prepared: Prepared, config: ServiceConfig, notify: Notify) -> tuple[Document, BlobStore]:
    blobs = BlobStore(config.blobs.url)
    inputs = [await asyncio.to_thread(blobs.put, image) for image in prepared.images]
    counts = {"posted": 0, "done": 0}

    def count(what: str) -> None:
        counts[what] += 1
        notify(f"writing; {counts['done']} of {counts['posted']} images are done")

    async with QueueClient(
        config.queue,
        priority=HIGH,
        on_posted=lambda _: count("posted"),
        on_outcome=lambda _: count("done"),
    ) as client:
        document = await write_document(
            authors.make_author(config.author),
            Task(question=prepared.options.prompt, inputs=tuple(inputs)),
            client=client,
            blobs=blobs,
            document_id=f"document-{uuid.uuid4().hex[:12]}",
            tools=config.tools,
            timeout_s=config.author.timeout_s
            + config.queue.wait_s
            + max(config.tools.limit_s(tool) for tool in tools.tool_names()),
            seed=prepared.options.seed,
        )
    return document, blobs
