"""Documents and samples as values for the templates: strings, data URIs and numbers.

Invariants: every part of the document appears, in order; a failed or invalid one is a box with its reason.
Prose is rendered as Markdown without raw HTML, links or images, so that a document can show nothing but
itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import zip_longest

from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import JsonValue

from evaluation.pages.pictures import data_uri
from evaluation.pages.provenance import figure
from evaluation.pages.samples import Sample
from policy.document import Document, ImagePart, InvalidPart, Part, TextPart
from policy.tools import caption
from workers.errors import Fault
from workers.messages import Failure
from workers.storage.blobs import BlobStore

REASONS = {
    "tag_invalid": "The tag cannot be read",
    "bad_params": "The tag has impossible parameters",
    "input_failed": "The image to edit was never made",
    "code_raised": "The chart code raised an error",
    "code_limit": "The chart code ran over its limits",
    "code_budget": "The code of this document had used its time",
    "no_figure": "The chart code drew nothing",
    "glyph_missing": "The chart has characters that no installed font has",
    "prompt_refused": "The provider refused the prompt",
    "no_hit": "The search found nothing",
}
TERMS = {
    "r_num": "image count (r_num)",
    "L": "text judge (L)",
    "M": "image judge (M)",
    "tools": "required tools",
}
_markdown = MarkdownIt("js-default", {"html": False, "linkify": False}).disable(["image", "link", "autolink"])


@dataclass(frozen=True)
class Piece:
    """One part of a document.

    `kind`: text (`html`), image (`src`) or missing (`reason`, `detail`). `figure`: its name among the tags.
    `query`: the query or prompt; `code`: the chart's code, or the text of a tag that does not parse.
    `infrastructure`: a failure by infrastructure, not by the author. `part`: the image's part.
    """

    kind: str
    html: Markup = field(default_factory=Markup)
    figure: str = ""
    src: str = ""
    caption: str = ""
    origin: str = ""
    query: str = ""
    code: str = ""
    reason: str = ""
    detail: str = ""
    infrastructure: bool = False
    part: ImagePart | None = None


@dataclass(frozen=True)
class Card:
    """One sample with its scores. `terms`, `details`: as the functions of these names. `cut_by`: the limit
    that cut it off, "" if none did.
    """

    step: int
    reward: float | None
    state: str
    pieces: list[Piece]
    terms: list[tuple[str, str, float | None]]
    details: list[tuple[str, str]]
    cut_by: str
    masked_by: list[str]
    more: str


def card(sample: Sample, blobs: BlobStore) -> Card:
    """A sample as values for the template."""
    return Card(
        step=sample.step,
        reward=sample.reward,
        state=sample.state,
        pieces=pieces(sample.document, blobs),
        terms=terms(sample.breakdown),
        details=details(sample.breakdown),
        cut_by=_cut_by(sample.document),
        masked_by=[_failed(failure, by) for failure, by in zip_longest(sample.masked_by, sample.by)],
        more=sample.more,
    )


def _cut_by(document: Document) -> str:
    if document.out_of_time:
        return "time limit"
    return "token limit" if document.truncated else ""


def pieces(document: Document, blobs: BlobStore) -> list[Piece]:
    """The parts of a document, in order; blank text is left out."""
    return [
        _piece(part, blobs) for part in document.parts if not isinstance(part, TextPart) or part.text.strip()
    ]


def _piece(part: Part, blobs: BlobStore) -> Piece:
    if isinstance(part, TextPart):
        return Piece("text", html=prose(part.text))
    if isinstance(part, InvalidPart):
        return Piece(
            "missing",
            figure=figure(part.index),
            reason=REASONS["tag_invalid"],
            detail=part.reason,
            code=part.raw,
        )
    return _image(part, blobs)


def prose(text: str) -> Markup:
    """Markdown to HTML; HTML in it stays visible text."""
    return Markup(_markdown.render(text))


def reason(failure: Failure) -> str:
    """A failure's cause in words."""
    return REASONS.get(
        failure.cause.value, f"Infrastructure failed ({failure.cause.value.replace('_', ' ')})"
    )


def _failed(failure: Failure, by: str | None) -> str:
    """The tool or judge that failed, the reason and the detail."""
    words = [by.replace("_", " ") if by else "", reason(failure), failure.detail]
    return ": ".join(word for word in words if word)


def terms(breakdown: dict[str, JsonValue]) -> list[tuple[str, str, float | None]]:
    """The reward's terms: (name, value, length of the bar in [0, 1] or None)."""
    return [
        (TERMS.get(name, name), f"{value:.2f}", float(value) if 0 <= value <= 1 else None)
        for name, value in breakdown.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def details(breakdown: dict[str, JsonValue], prefix: str = "") -> list[tuple[str, str]]:
    """The rest of the breakdown: (name, value). Nested names are joined with a dot; empty values left out."""
    rows: list[tuple[str, str]] = []
    for name, value in breakdown.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            rows += details(value, f"{label} · ")
        elif value not in (None, "", []) and (prefix or isinstance(value, bool | str | list)):
            rows.append((label, _plain(value)))
    return rows


def _plain(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _image(part: ImagePart, blobs: BlobStore) -> Piece:
    params = part.tag.params
    origin = caption(part.tag.source) if part.blob else part.tag.source
    if part.tag.source == "edit":
        origin = f"{origin} from image {params.get('img_index')}"
    piece = Piece(
        "missing",
        figure=figure(part.index),
        caption=part.tag.description,
        origin=origin,
        query=str(params.get("query", params.get("prompt", ""))),
        code=str(params.get("code", "")),
        infrastructure=True,
        part=part,
    )
    if part.failure is not None:
        infrastructure = part.failure.fault is Fault.INFRASTRUCTURE
        why, detail = reason(part.failure), part.failure.detail
        return replace(piece, reason=why, detail=detail, infrastructure=infrastructure)
    if part.blob is None:
        return replace(piece, reason="No outcome was recorded")
    src = data_uri(blobs, part.blob)
    if src is None:
        return replace(piece, reason="The stored image cannot be read")
    return replace(piece, kind="image", src=src, infrastructure=False)
