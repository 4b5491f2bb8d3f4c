"""The page of a run: one HTML file that shows its documents as a reader would see them, early beside late.

Invariants: one file without outside references (images and style are inside), so that it can be mailed; those
of `evaluation.pages.html`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.pages import html
from evaluation.pages.pictures import data_uri
from evaluation.pages.samples import Pair, Sample
from evaluation.pages.view import card
from workers.messages import BlobRef
from workers.storage.blobs import BlobStore


@dataclass(frozen=True)
class KeyFigure:
    """One number of the run with its name and, if needed, a few words on what it means."""

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
    """`masked`: some of the samples that infrastructure masked, shown with their reasons."""

    title: str
    lead: str
    figures: Sequence[KeyFigure]
    pairs: Sequence[Pair]
    curve: bytes | None = None
    tables: Sequence[Table] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)
    masked: Sequence[Sample] = field(default_factory=tuple)


def wanted(image_num: int) -> str:
    """The number of images a prompt asks for, in words."""
    fixed = {-1: "no image", 0: "images at will", 99: "at least one image", 1: "exactly one image"}
    return fixed.get(image_num, f"exactly {image_num} images")


def render(page: Page, blobs: BlobStore) -> str:
    """The page as HTML."""
    rows = [
        {
            "early": pair.early.document.task,
            "late": pair.late.document.task if pair.late else None,
            "same": pair.same_prompt,
            "given": _given(pair, blobs),
            "wanted": wanted(pair.early.document.task.image_num),
            "cards": [
                {"age": age, "card": card(sample, blobs)}
                for age, sample in (("early", pair.early), ("late", pair.late))
                if sample
            ],
        }
        for pair in page.pairs
    ]
    compared = any(pair.late for pair in page.pairs)
    curve = f"data:image/png;base64,{base64.b64encode(page.curve).decode()}" if page.curve else ""
    masked = [
        {
            "task": sample.document.task,
            "given": _given(Pair(sample), blobs),
            "wanted": wanted(sample.document.task.image_num),
            "card": card(sample, blobs),
        }
        for sample in page.masked
    ]
    return html.render(
        "page.html.j2",
        ("page.css",),
        page=page,
        rows=rows,
        masked=masked,
        curve=curve,
        compared=compared,
    )


def write(path: Path, page: Page, blobs: BlobStore) -> Path:
    """Render to `path`."""
    path.write_text(render(page, blobs), encoding="utf-8")
    return path


def _given(pair: Pair, blobs: BlobStore) -> list[tuple[str, list[str]]]:
    """The input images of both prompts with the words beside them; one entry if they are the same."""
    early = pair.early.document.task.inputs
    late = pair.late.document.task.inputs if pair.late else early
    sides = [("given", early)] if early == late else [("given early", early), ("given late", late)]
    return [(words, _inputs(refs, blobs)) for words, refs in sides if refs]


def _inputs(refs: Sequence[BlobRef], blobs: BlobStore) -> list[str]:
    return [uri for uri in (data_uri(blobs, ref) for ref in refs) if uri]
