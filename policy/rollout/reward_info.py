"""The numbers of a scored document, for verl's `reward_extra_info`.

`policy.train.document_metrics` averages those with a "/" over the batch of a step.
"""

from __future__ import annotations

from collections import Counter

from policy.document import Document
from policy.scoring import Score
from policy.tools import tool_names

TERMS = {"r_num": "r_num", "L": "L", "M": "M", "tools": "T"}  # in the breakdown, and in metrics


def reward_info(document: Document, score: Score) -> dict[str, float]:
    """The reward, its terms, and counts of the document.

    - `terms/...`: r_num, L, M, T; a term that is not in the sum is missing;
    - `document/...`: images that were made, characters of text, whether the token limit or its time ended it;
    - `tools/NAME/attempts`, `tools/NAME/successes`: valid tags of each tool, and those with an image;
    - `caught/...`: 1 if it has a repeated image, an edit without effect, or more tags than it may have.
    """
    made = [part for part in document.images if part.blob is not None]
    attempts = Counter(part.tag.source for part in document.images)
    successes = Counter(part.tag.source for part in made)
    info = {
        "reward": score.reward or 0.0,
        "images": float(len(document.images)),
        "invalid_tags": float(len(document.invalid)),
        "truncated": float(document.truncated),
        "document/images": float(len(made)),
        "document/text_chars": float(len(document.text)),
        "document/truncated": float(document.truncated),
        "document/out_of_time": float(document.out_of_time),
    }
    for name in tool_names():
        info[f"tools/{name}/attempts"] = float(attempts[name])
        info[f"tools/{name}/successes"] = float(successes[name])
    for name, metric in TERMS.items():
        value = score.breakdown.get(name)
        if isinstance(value, int | float):
            info[f"terms/{metric}"] = float(value)
    caught = score.breakdown.get("caught")
    if isinstance(caught, dict):
        info |= {f"caught/{name}": float(bool(count)) for name, count in caught.items()}
    return info
