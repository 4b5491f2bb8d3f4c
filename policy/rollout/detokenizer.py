"""Decode a growing list of token ids into text.

The method is that of vLLM and TGI: decode a short context with and without the new ids.

Invariants:
- the pieces joined are the decoding of all ids;
- a character with bytes in several tokens is held back until it is complete;
- each id is decoded once, and a few of them a second time, however long the text is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"
CONTEXT = 8  # ids that are decoded again before the next ones
LONGEST = 4  # ids of one character at most: one for each byte
MAX_HELD = 64  # ids held back at most; more contain bytes that never form a character
Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """For one rollout. `decode` maps ids to text, special tokens left out."""

    def __init__(self, decode: Decode):
        self._decode = decode
        self._ids: list[int] = []  # the context, and the ids after it that may end within a character
        self._whole = 0  # number of ids up to the last known end of a character
        self._returned = 0  # number of characters of their text that were returned

    def feed(self, ids: Sequence[int]) -> str:
        """Add ids and return the text that they complete."""
        self._ids.extend(ids)
        return self._next(final=False)

    def close(self) -> str:
        """Return the text that was held back, complete or not."""
        return self._next(final=True)

    def _next(self, *, final: bool) -> str:
        now = self._decode(self._ids)
        certain = now if final else now.rstrip(INCOMPLETE)
        piece = certain[self._returned :]
        self._returned = len(certain)
        if certain == now:
            self._shorten(now)
        elif len(self._ids) > MAX_HELD:
            piece += self._abandon(now)
        return piece

    def _abandon(self, text: str) -> str:
        """Stop holding back bytes that cannot form a character, and return their replacement text.

        `text`: the decoding of all ids. Changes nothing if it finds no cut between characters.
        """
        for kept in range(LONGEST, CONTEXT + 1):
            before = self._decode(self._ids[:-kept])
            if len(before) >= self._returned and before + self._decode(self._ids[-kept:]) == text:
                piece = before[self._returned :]
                del self._ids[:-kept]
                self._returned = self._whole = 0
                return piece
        return ""

    def _shorten(self, text: str) -> None:
        """Keep only a context that starts at a character. `text`: the decoding of all ids."""
        tail = self._decode(self._ids[-CONTEXT:])
        if tail and INCOMPLETE not in tail and text.endswith(tail):
            del self._ids[:-CONTEXT]
            self._returned = len(tail)
        elif self._whole:
            del self._ids[: self._whole]
            self._returned = len(self._decode(self._ids))
        self._whole = len(self._ids)
