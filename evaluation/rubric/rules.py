"""The demo's judge of criteria: by words alone, no model. It says so in every reason.

2 when at least two thirds of the criterion's words that carry a subject stand in the document, 1 for a third,
else 0; the words of a picture that came count as the document's. A criterion that speaks of pictures gets 0
when none came. Of a document only the first `READ_CHARS` characters are read. Invariants: deterministic; a
word or a picture more never lowers a score, up to that length.
"""

from __future__ import annotations

from evaluation.payloads import RubricPayload
from evaluation.rubric.grade import CriterionVerdict
from rewards.judges.payloads import ShownImage, ShownText
from rewards.judges.rules import READ_CHARS, meaning
from rewards.judges.wording import grade, subject
from workers.errors import Cause, InfrastructureFault
from workers.messages import Success
from workers.text.patterns import PICTURES

STEPS = (1 / 3, 2 / 3)


def ask(payload: RubricPayload) -> Success:
    """The verdict. Raises `InfrastructureFault(VERDICT_UNREADABLE)` for a criterion that names nothing."""
    pictures = [part for part in payload.parts if isinstance(part, ShownImage) and part.blob is not None]
    asked, about_pictures = subject(payload.criterion), PICTURES.search(payload.criterion) is not None
    if about_pictures and not pictures:
        return _verdict(0, "the criterion speaks of pictures and the document shows none")
    if not asked:
        if about_pictures:
            return _verdict(1, f"pictures are asked for and {len(pictures)} came; rules cannot look at them")
        raise InfrastructureFault(
            Cause.VERDICT_UNREADABLE, "by rules: the criterion holds no word that could be looked for"
        )
    written = [part.text for part in payload.parts if isinstance(part, ShownText)]
    shown = [f"{meaning(part.tag)}\n{part.caption}" for part in pictures]
    found = asked & subject("\n".join(written + shown)[:READ_CHARS])
    words = f" ({', '.join(sorted(found))})" if found else ""
    return _verdict(
        grade(len(found) / len(asked), STEPS),
        f"{len(found)} of the criterion's {len(asked)} words stand in the document{words}",
    )


def _verdict(score: int, why: str) -> Success:
    return CriterionVerdict(reason=f"by rules: {why}", score=score).success("rules")
