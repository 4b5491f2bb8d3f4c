"""The images of a document that add nothing to it: repeats of an earlier one, and edits without effect.

- A repeat has the bytes of an earlier image or of an input of the task, or is a copy of an earlier found or
  generated image (`workers.fingerprint`). Charts and edits are compared by their bytes only.
- An edit has no effect when its worker saw no difference (`unchanged` in its source).
"""

from __future__ import annotations

from typing import Literal

from policy.document import Document, ImagePart
from workers.fingerprint import same_picture
from workers.messages import Success

Waste = Literal["repeated", "unchanged"]


def wasted(document: Document) -> dict[int, Waste]:
    """Why an image adds nothing, by the index of its tag."""
    seen = {ref.sha256 for ref in document.task.inputs}
    fingerprints: list[str] = []
    found: dict[int, Waste] = {}
    for part in document.images:
        if part.blob is None:
            continue
        fingerprint = _source(part).get("fingerprint")
        if part.blob.sha256 in seen:
            found[part.index] = "repeated"
        elif _source(part).get("unchanged"):
            found[part.index] = "unchanged"
        elif isinstance(fingerprint, str):
            if any(same_picture(fingerprint, other) for other in fingerprints):
                found[part.index] = "repeated"
            fingerprints.append(fingerprint)
        seen.add(part.blob.sha256)
    return found


def _source(part: ImagePart) -> dict[str, object]:
    result = part.outcome.result if part.outcome else None
    return dict(result.source) if isinstance(result, Success) else {}
