"""Text from a growing list of token ids, piece by piece, without ever encoding text again.

Invariants: the pieces joined are the decoding of all ids; a character whose bytes are spread over several
tokens is held back until it is whole; each id is decoded once, and a few of them once more, however long the
text. The method is that of vLLM and TGI: decode a short context with and without the new ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"
CONTEXT = 8  # ids that are decoded again before the next ones
LONGEST = 4  # ids of one character: one for each byte
MAX_HELD = 64  # ids without a whole character at their end; so many hold bytes that never become one
Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """`decode` maps token ids to text, special tokens left out."""

    def __init__(self, decode: Decode):
        self._decode = decode
        self._ids: list[int] = []  # the context, and after it what is not known to end a character
        self._whole = 0  # how many of them are known to end a character
        self._told = 0  # how many characters of their text are told

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these ids complete."""
        self._ids.extend(ids)
        return self._tell(final=False)

    def close(self) -> str:
        """What was held back, whole or not."""
        return self._tell(final=True)

    def _tell(self, *, final: bool) -> str:
        now = self._decode(self._ids)
        certain = now if final else now.rstrip(INCOMPLETE)
        piece = certain[self._told :]
        self._told = len(certain)
        if certain == now:
            self._shorten(now)
        elif len(self._ids) > MAX_HELD:
            piece += self._abandon(now)
        return piece

    def _abandon(self, text: str) -> str:
        """Give up the bytes that cannot become a character any more, and return what stands for them; `text`
        is that of all ids. Where no cut between characters is found, nothing changes."""
        for kept in range(LONGEST, CONTEXT + 1):
            before = self._decode(self._ids[:-kept])
            if len(before) >= self._told and before + self._decode(self._ids[-kept:]) == text:
                piece = before[self._told :]
                del self._ids[:-kept]
                self._told = self._whole = 0
                return piece
        return ""

    def _shorten(self, text: str) -> None:
        """Keep only a context that begins with a whole character; `text` is that of all ids."""
        tail = self._decode(self._ids[-CONTEXT:])
        if tail and INCOMPLETE not in tail and text.endswith(tail):
            del self._ids[:-CONTEXT]
            self._told = len(tail)
        elif self._whole:
            del self._ids[: self._whole]
            self._told = len(self._decode(self._ids))
        self._whole = len(self._ids)
