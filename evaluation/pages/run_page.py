"""The page of a run: its figures, and its documents, early beside late.

Invariants: those of `evaluation.pages.template`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.pages import template
from evaluation.pages.pictures import data_uris
from evaluation.pages.samples import Pair, Sample
from evaluation.pages.view import card
from workers.messages import BlobRef
from workers.storage.blobs import BlobStore


@dataclass(frozen=True)
class KeyFigure:
    """One number with its name and an optional note."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """The content of the page.

    `curve`: a PNG; `masked`: samples that infrastructure masked, one of each cause.
    """

    title: str
    lead: str
    figures: Sequence[KeyFigure]
    pairs: Sequence[Pair]
    curve: bytes | None = None
    tables: Sequence[Table] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)
    masked: Sequence[Sample] = field(default_factory=tuple)


def wanted(image_num: int) -> str:
    """The number of images that a prompt requests, in words."""
    fixed = {-1: "no image", 0: "any number of images", 99: "at least one image", 1: "exactly one image"}
    return fixed.get(image_num, f"exactly {image_num} images")


def render(page: Page, blobs: BlobStore) -> str:
    """The page as HTML."""
    return template.render(
        "run.html.j2",
        title=page.title,
        lead=page.lead,
        page=page,
        rows=[_row(pair, blobs) for pair in page.pairs],
        masked=[_row(Pair(sample), blobs) for sample in page.masked],
        curve=f"data:image/png;base64,{base64.b64encode(page.curve).decode()}" if page.curve else "",
        compared=any(pair.late for pair in page.pairs),
    )


def _row(pair: Pair, blobs: BlobStore) -> dict[str, Any]:
    """A pair as values for the template."""
    early, late = pair.early.document.task, pair.late.document.task if pair.late else None
    samples = [("early", pair.early), *([("late", pair.late)] if pair.late else [])]
    return {
        "early": early,
        "late": late,
        "same": pair.same_prompt,
        "given": _given(early.inputs, late.inputs if late else early.inputs, blobs),
        "wanted": wanted(early.image_num),
        "cards": [(age, card(sample, blobs)) for age, sample in samples],
    }


def write(path: Path, page: Page, blobs: BlobStore) -> Path:
    """Render to `path`."""
    path.write_text(render(page, blobs), encoding="utf-8")
    return path


def _given(
    early: Sequence[BlobRef], late: Sequence[BlobRef], blobs: BlobStore
) -> list[tuple[str, list[str]]]:
    """The input images of both prompts with a label; one entry if they are the same."""
    sides = [("given", early)] if early == late else [("given early", early), ("given late", late)]
    return [(label, data_uris(blobs, refs)) for label, refs in sides if refs]
