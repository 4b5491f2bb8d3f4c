"""Judge criteria by words alone, without a model, for the demo. Every reason begins with "by rules".

Score 2 when at least two thirds of the criterion's subject words occur in the document, 1 for a third, else
0. The words of a picture's tag and caption count as the document's. A criterion about pictures gets 0 when
the document has none. Only the first `READ_CHARS` characters of a document are read.

Invariants: deterministic; one more word or picture never lowers a score, up to that length.
"""

from __future__ import annotations

from evaluation.payloads import RubricPayload
from evaluation.rubric.verdict import CriterionVerdict
from rewards.judges.parts import ShownImage, ShownText
from rewards.judges.rules import READ_CHARS, meaning
from rewards.judges.words import grade, subject
from workers.errors import Cause, InfrastructureFault
from workers.messages import Success
from workers.text.patterns import PICTURES

STEPS = (1 / 3, 2 / 3)


def judge(payload: RubricPayload) -> Success:
    """The verdict. Raises `InfrastructureFault(VERDICT_UNREADABLE)` when no word has a meaning."""
    pictures = [part for part in payload.parts if isinstance(part, ShownImage) and part.blob is not None]
    wanted, about_pictures = subject(payload.criterion), PICTURES.search(payload.criterion) is not None
    if about_pictures and not pictures:
        return _verdict(0, "the criterion is about pictures and the document has none")
    if not wanted:
        if about_pictures:
            return _verdict(
                1,
                f"the criterion is about pictures; {len(pictures)} are there, not judged by rules",
            )
        raise InfrastructureFault(
            Cause.VERDICT_UNREADABLE, "by rules: the criterion has no word to search for"
        )
    written = [part.text for part in payload.parts if isinstance(part, ShownText)]
    shown = [f"{meaning(part.tag)}\n{part.caption}" for part in pictures]
    found = wanted & subject("\n".join(written + shown)[:READ_CHARS])
    words = f" ({', '.join(sorted(found))})" if found else ""
    return _verdict(
        grade(len(found) / len(wanted), STEPS),
        f"{len(found)} of the criterion's {len(wanted)} words occur in the document{words}",
    )


def _verdict(score: int, why: str) -> Success:
    return CriterionVerdict(reason=f"by rules: {why}", score=score).success("rules")
