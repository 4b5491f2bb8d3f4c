"""The page of one document: as a reader sees it, images in place, under each where it comes from.

Invariants: those of `evaluation.pages.html`, and of `evaluation.pages.view` for prose; every part of the
document appears, in order; a place without an image says why, and whose fault that is.
"""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import JsonValue

from evaluation.pages.html import render
from evaluation.pages.pictures import data_uri
from evaluation.pages.provenance import Provenance, figure, provenance
from evaluation.pages.view import REASONS, prose, reason
from policy.document import Document, ImagePart, InvalidPart, Part, TextPart
from workers.errors import Fault
from workers.storage.blobs import BlobStore


@dataclass(frozen=True)
class Block:
    """`kind` text: `html`; image: `src`; missing: `why` and `detail`; of both, the figure and its provenance.
    `ours`: infrastructure's fault, not the author's; `raw`: a tag that cannot be read.
    """

    kind: str
    html: Markup = field(default_factory=Markup)
    figure: str = ""
    caption: str = ""
    src: str = ""
    provenance: Provenance | None = None
    why: str = ""
    ours: bool = False
    detail: str = ""
    raw: str = ""


def title(document: Document) -> str:
    """The document's first heading, else the beginning of what was asked."""
    for part in document.parts:
        if isinstance(part, TextPart):
            tokens = MarkdownIt().parse(part.text)
            for token, content in itertools.pairwise(tokens):
                if token.type == "heading_open" and (words := _plain(content)):
                    return words
    return textwrap.shorten(document.task.question.replace("<image>", " "), 80, placeholder=" …")


def blocks(document: Document, blobs: BlobStore) -> list[Block]:
    """What the page shows, in order."""
    return [_block(part, len(document.task.inputs), blobs) for part in document.parts if _shown(part)]


def page(document: Document, blobs: BlobStore) -> str:
    """The page as HTML."""
    inputs = [uri for uri in (data_uri(blobs, ref) for ref in document.task.inputs) if uri]
    shown = sum(part.blob is not None for part in document.images)
    author = str(document.extra.get("author") or "")
    facts = [
        ("author", Path(author).name if Path(author).is_absolute() else author),
        ("seed", document.extra.get("seed")),
        ("figures", f"{shown} of {document.attempts}"),
        ("seconds", _rounded(document.extra.get("seconds"))),
    ]
    return render(
        "reader.html.j2",
        ("page.css", "reader.css"),
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


def _shown(part: Part) -> bool:
    return not isinstance(part, TextPart) or bool(part.text.strip())


def _block(part: Part, inputs: int, blobs: BlobStore) -> Block:
    if isinstance(part, TextPart):
        return Block("text", html=prose(part.text))
    if isinstance(part, InvalidPart):
        return Block(
            "missing",
            figure=figure(part.index),
            why=REASONS["tag_invalid"],
            detail=part.reason,
            raw=part.raw,
        )
    return _image(part, inputs, blobs)


def _image(part: ImagePart, inputs: int, blobs: BlobStore) -> Block:
    block = Block(
        "missing",
        figure=figure(part.index),
        caption=part.tag.description,
        provenance=provenance(part, inputs),
        ours=True,
    )
    if part.failure is not None:
        ours = part.failure.fault is Fault.INFRASTRUCTURE
        return replace(block, why=reason(part.failure), detail=part.failure.detail, ours=ours)
    if part.blob is None:
        return replace(block, why="No outcome was recorded")
    src = data_uri(blobs, part.blob)
    if src is None:
        return replace(block, why="The stored image cannot be read")
    return replace(block, kind="image", src=src, ours=False)


def _plain(token: object) -> str:
    children = getattr(token, "children", None) or []
    return " ".join("".join(child.content for child in children if child.type in _WORDS).split())


_WORDS = ("text", "code_inline", "softbreak")
