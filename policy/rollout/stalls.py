"""Decide whether a text that ran out of its time is cut or masked. Pure, without I/O.

The time of a text includes what is not the model's doing: a wait for a slot of vLLM, weight updates, the
pauses of `colocate_async`, a stalled server. It shows in segments that took far longer per token than the
median segment. What they took beyond `SLOW` times as long is a stall. A text is masked if its stalls took
more than `SHARE` of its time, or if no segment was completed: then there is no token to train on.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

SHARE = 0.25  # of the text's time
SLOW = 3.0  # a segment may take this many times as long as the median segment per token
LEAST_S = 60.0  # a segment may take this long in any case: a weight update, or a full batch


def stall(segments: Sequence[tuple[float, int]], open_tokens: int, timeout_s: float) -> str | None:
    """Why a text that ran out of `timeout_s` is masked; None if it is cut and scored.

    `segments`: seconds and tokens of each complete segment. The rest of the time was spent on a segment of at
    most `open_tokens`.
    """
    if not segments:
        return "the generator completed no segment"
    per_token = median(seconds / tokens for seconds, tokens in segments)
    open_s = timeout_s - sum(seconds for seconds, _ in segments)
    stalled = sum(
        max(0.0, seconds - max(LEAST_S, SLOW * per_token * tokens))
        for seconds, tokens in (*segments, (open_s, open_tokens))
    )
    if stalled <= SHARE * timeout_s:
        return None
    return f"the generator stood still for {stalled:.0f} s and did not complete the text"
