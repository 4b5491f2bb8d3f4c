"""A simulated model: prepared documents, returned segment by segment at a model's pace.

Invariants: texts and segment times follow from the seed; a segment ends where a tag closes, as a real one
does; with `finishing` set, the next segment of every document is its last.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from llmi.demo.prompts.specimens import PERFECT, write
from llmi.demo.prompts.topics import ANY, NONE, draw_topic
from llmi.tools import SOURCES
from policy.grammar.tags import CLOSE
from policy.rollout.result import Segment

PACE_S = (0.5, 3.0)  # a segment takes this long, evenly drawn
PROMPT_TOKENS = 200
PARAGRAPH = 8  # specimens without images that make one paragraph of prose
TEXTS = 256  # different documents
END = 0
_PIECE = re.compile(r"\s?\S{1,4}|\s")  # as long as a real tokenizer's


@dataclass(frozen=True)
class SimulatedText:
    """One document as token ids, cut where a tag closes; the last segment ends with `END`."""

    segments: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.segments))


class Vocabulary:
    """A trivial tokenizer: ids are numbers of pieces of text, in order of their first appearance."""

    def __init__(self) -> None:
        self._pieces = [""]
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        ids = []
        for piece in _PIECE.findall(text):
            if piece not in self._ids:
                self._ids[piece] = len(self._pieces)
                self._pieces.append(piece)
            ids.append(self._ids[piece])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(self._pieces.__getitem__, ids))


def compose(random: Random, vocabulary: Vocabulary, *, pictures: bool = True) -> SimulatedText:
    """A document with paragraphs between its tags: some 1,200 tokens, 1 to 3 pictures if any."""
    topic = draw_topic(random, random.choice(SOURCES))
    image_num = random.choice((ANY, 2, 3)) if pictures else NONE
    lines = write(random, topic, image_num, PERFECT).split("\n")
    prose = (" ".join(write(random, topic, NONE, PERFECT).split("\n")) for _ in range(PARAGRAPH * len(lines)))
    text = "\n".join(line + "\n" + " ".join(next(prose) for _ in range(PARAGRAPH)) for line in lines)
    *tagged, rest = text.split(CLOSE)
    closed = (tuple(vocabulary.encode(part + CLOSE)) for part in tagged)
    return SimulatedText((*closed, (*vocabulary.encode(rest), END)))


class SimulatedModel:
    """One for all rollouts. `closed(rollout_id, number)` is called when tag `number` (from 0) has closed."""

    def __init__(self, seed: int, closed: Callable[[str, int], None]):
        self._random = Random(seed)
        self._closed = closed
        self.vocabulary = Vocabulary()
        self.texts = [compose(self._random, self.vocabulary) for _ in range(TEXTS)]
        self.written: dict[str, int] = {}  # tokens in memory, of the rollouts in flight
        self.finishing = False

    async def generate(
        self, ids: list[int], left: int, number: int, *, rollout_id: str, text: SimulatedText
    ) -> Segment:
        """The next segment of `text`, after the time a model takes. For `policy.rollout.result.Generate`."""
        self.written[rollout_id] = len(ids)
        await asyncio.sleep(self._random.uniform(*PACE_S))
        segment = list((END,) if self.finishing else text.segments[number])
        # New floats, as an engine returns them: shared ones would make the tokens look smaller.
        log_probs = [-self._random.random() for _ in segment]
        self.written[rollout_id] = len(ids) + len(segment)
        if segment[-1] != END:
            self._closed(rollout_id, number)
        return Segment(segment, log_probs, (1, 1))

    def forget(self, rollout_id: str) -> None:
        """Drop the token count of a rollout that has ended."""
        self.written.pop(rollout_id, None)

    def choose(self) -> SimulatedText:
        return self._random.choice(self.texts)
