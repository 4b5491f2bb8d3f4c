"""The provenance of an image, in words.

Invariants: pure; shows only the request and what the tool reported; an address is text, never a link.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from policy.document import ImagePart
from workers.messages import Success

PROVIDERS = {
    "library": "a local image library",
    "serpapi": "Google Images (SerpAPI)",
    "diffusers": "diffusers",
    "openai": "an images endpoint",
    "qwen_server": "a Qwen-Image server",
}


@dataclass(frozen=True)
class Provenance:
    """`how`: one line; `rows`: (name, value) pairs; `code`: what drew a chart."""

    how: str
    rows: tuple[tuple[str, str], ...] = ()
    code: str = ""


def figure(index: int) -> str:
    """The name of a tag by its index (from 0, over all tags of a document)."""
    return f"Figure {index + 1}"


def place(img_index: int, inputs: int) -> str:
    """The image that an edit's `img_index` points to: inputs are counted first, then every tag."""
    return f"given image {img_index + 1}" if img_index < inputs else figure(img_index - inputs)


def provenance(part: ImagePart, inputs: int) -> Provenance:
    """The provenance of an image, made or only requested. `inputs`: number of images in the prompt."""
    result = part.outcome.result if part.outcome else None
    source: dict[str, JsonValue] = result.source if isinstance(result, Success) else {}
    made, params = bool(source), part.tag.params
    match part.tag.source:
        case "search":
            rows = _given(
                query=params.get("query"),
                title=source.get("title"),
                page=source.get("page"),
                image=source.get("url") or source.get("file"),
                origin=source.get("origin"),
            )
            return Provenance(f"Found{_by(source, 'in')}" if made else "A search was requested", rows)
        case "code":
            digest = f"SHA-256 {str(source['sha256'])[:16]}…" if source.get("sha256") else None
            how = "Drawn by code that the author wrote" if made else "A chart was requested"
            rows = _given(code=digest, seed=source.get("seed"))
            return Provenance(how, rows, str(params.get("code", "")))
        case "edit":
            which = place(int(params["img_index"]), inputs)
            how = f"Edited from {which}{_by(source, 'by')}" if made else f"An edit of {which} was requested"
            return Provenance(how, _painted(part, source))
        case _:
            how = f"Generated{_by(source, 'by')}" if made else "A new picture was requested"
            return Provenance(how, _painted(part, source))


def _painted(part: ImagePart, source: dict[str, JsonValue]) -> tuple[tuple[str, str], ...]:
    model = " · ".join(str(source[key]) for key in ("model", "pipeline", "host") if source.get(key))
    prompt = part.tag.params.get("prompt")
    return _given(prompt=prompt, model=model, seed=source.get("seed"), steps=source.get("steps"))


def _by(source: dict[str, JsonValue], word: str) -> str:
    provider = str(source.get("provider") or "")
    return f" {word} {PROVIDERS.get(provider, provider)}" if provider else ""


def _given(**rows: JsonValue) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in rows.items() if value not in (None, ""))
