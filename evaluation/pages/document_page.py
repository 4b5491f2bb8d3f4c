"""The page of one document: as a reader sees it, with the provenance under each image.

Invariants: those of `evaluation.pages.template` and, for prose, of `evaluation.pages.view`; a place without
an image states the reason, and whether it is the author's fault.
"""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

from markdown_it import MarkdownIt
from pydantic import JsonValue

from evaluation.pages.pictures import data_uris
from evaluation.pages.provenance import Provenance, provenance
from evaluation.pages.template import render
from evaluation.pages.view import Piece, pieces
from policy.document import Document, TextPart
from workers.storage.blobs import BlobStore


def title(document: Document) -> str:
    """The document's first heading, else the beginning of the prompt."""
    for part in document.parts:
        if isinstance(part, TextPart):
            tokens = MarkdownIt().parse(part.text)
            for token, content in itertools.pairwise(tokens):
                if token.type == "heading_open" and (words := _plain(content)):
                    return words
    return textwrap.shorten(document.task.question.replace("<image>", " "), 80, placeholder=" …")


def blocks(document: Document, blobs: BlobStore) -> list[tuple[Piece, Provenance | None]]:
    """The parts of the page in order, each image with its provenance."""
    inputs = len(document.task.inputs)
    return [
        (piece, provenance(piece.part, inputs) if piece.part else None) for piece in pieces(document, blobs)
    ]


def page(document: Document, blobs: BlobStore) -> str:
    """The page as HTML."""
    inputs = data_uris(blobs, document.task.inputs)
    shown = sum(part.blob is not None for part in document.images)
    author = str(document.extra.get("author") or "")
    facts = [
        ("author", Path(author).name if Path(author).is_absolute() else author),
        ("seed", document.extra.get("seed")),
        ("figures", f"{shown} of {document.attempts}"),
        ("seconds", _rounded(document.extra.get("seconds"))),
    ]
    return render(
        "document.html.j2",
        title=title(document),
        question=document.task.question.replace("<image>", "[image]" if inputs else ""),
        inputs=inputs,
        blocks=blocks(document, blobs),
        truncated=document.truncated,
        facts=[(name, str(value)) for name, value in facts if value not in (None, "")],
    )


def _rounded(seconds: JsonValue) -> JsonValue:
    return f"{seconds:.1f}" if isinstance(seconds, float) else seconds


def write(path: Path, document: Document, blobs: BlobStore) -> Path:
    """The page as the file at `path`."""
    path.write_text(page(document, blobs), encoding="utf-8")
    return path


def _plain(token: object) -> str:
    children = getattr(token, "children", None) or []
    return " ".join("".join(child.content for child in children if child.type in _WORDS).split())


_WORDS = ("text", "code_inline", "softbreak")
