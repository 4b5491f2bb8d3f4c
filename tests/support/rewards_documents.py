"""Documents for the tests of rewards: P("text"), I("code"), F("search"), X() for an invalid tag."""

from __future__ import annotations

from llmi.tools import Source
from policy.document import Document, ImagePart, InvalidPart, Part, Tag, Task, TextPart
from workers.errors import Cause
from workers.messages import BlobRef, Failure, Outcome, Success

BLOB = BlobRef(sha256="a" * 64, media_type="image/png", size=10, width=64, height=64)
_OWN = BLOB.model_copy(update={"sha256": "f" * 64})  # `document` gives each such image a blob of its own
PARAM = {"search": "query", "diffusion": "prompt", "code": "code", "edit": "prompt"}


def P(text: str) -> TextPart:
    return TextPart(text=text)


def I(  # noqa: E743 - reads as a symbol in documents
    source: Source = "diffusion", says: str = "a grey heron", *, blob: BlobRef = _OWN, **about: object
) -> ImagePart:
    """A tag with its image, which is like no other without a `blob`. `about`: the source of the image."""
    made = Success.model_validate({"images": (blob,), "source": about})
    return _tag(source, says, Outcome(request_id="r", kind=source, result=made))


def F(
    source: Source = "diffusion", cause: Cause = Cause.PROMPT_REFUSED, says: str = "a grey heron"
) -> ImagePart:
    """A tag that failed."""
    return _tag(source, says, Outcome(request_id="r", kind=source, result=Failure(cause=cause)))


def pending(source: Source = "diffusion", says: str = "a grey heron") -> ImagePart:
    """A tag with a tool that has not finished."""
    return _tag(source, says, None)


def X(*, too_many: bool = False) -> InvalidPart:
    raw = "<imgen>{'source': </imgen>"
    return InvalidPart(index=0, raw=raw, reason="not a dictionary", too_many=too_many)


def document(*parts: Part, rollout_id: str = "rollout", **task: object) -> Document:
    """A document of `parts`, its tags numbered in order; `task` holds the fields of `Task`."""
    numbered: list[Part] = []
    for part in parts:
        tags = sum(not isinstance(p, TextPart) for p in numbered)
        numbered.append(part if isinstance(part, TextPart) else _numbered(part, tags))
    asked = Task.model_validate({"question": "Tell me about the grey heron and its nest.", **task})
    return Document(rollout_id=rollout_id, task=asked, parts=tuple(numbered))


def _numbered(part: ImagePart | InvalidPart, index: int) -> ImagePart | InvalidPart:
    changed: dict[str, object] = {"index": index}
    if isinstance(part, ImagePart) and part.blob == _OWN:
        own = _OWN.model_copy(update={"sha256": f"{index:064x}"})
        result = part.outcome.result.model_copy(update={"images": (own,)})
        changed["outcome"] = part.outcome.model_copy(update={"result": result})
    return part.model_copy(update=changed)


def _tag(source: Source, says: str, outcome: Outcome | None) -> ImagePart:
    params: dict[str, str | int] = {PARAM[source]: says}
    if source == "edit":
        params["img_index"] = 0
    tag = Tag(source=source, description=says, params=params)
    return ImagePart(index=0, tag=tag, raw="", outcome=outcome)
