"""Text from a growing list of token ids, piece by piece, without ever encoding text again.

Invariants: the pieces joined are the decoding of all ids; a character whose bytes are spread over several
tokens is held back until it is whole. The method is that of vLLM and TGI: decode a short context with and
without the new ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"
Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """`decode` maps token ids to text, special tokens left out."""

    def __init__(self, decode: Decode):
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0  # where decoding starts: a whole character before what is new
        self._whole = 0  # how many ids are known to end a character
        self._told = 0  # how many characters from the context on are told

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these ids complete."""
        self._ids.extend(ids)
        return self._tell(final=False)

    def close(self) -> str:
        """What was held back, whole or not."""
        return self._tell(final=True)

    def _tell(self, *, final: bool) -> str:
        now = self._decode(self._ids[self._context :])
        certain = now if final else now.rstrip(INCOMPLETE)
        piece = certain[self._told :]
        self._told = len(certain)
        if certain == now:
            self._context, self._whole = self._whole, len(self._ids)
            self._told = len(self._decode(self._ids[self._context :]))
        return piece
