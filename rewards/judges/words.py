"""Subject words of a text, and how many of them two texts share. For the rule-based judges.

Invariants: deterministic; no input raises; the literal text `<image>` and tags have no words; each Chinese or
Japanese character is a word, since no space separates words there.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.text.patterns import ANNOUNCEMENT, MARKUP, WORD

# Words too common to name a subject, or words of the assignment itself.
_COMMON = """
a about above after all also am an and any are as at be been before being below between both but by
can could did do does each few for from further had has have her here him his how i if in into is it
its just may me more most my near next no nor not of off on one once only or other our out over own
per please same she should so some such than that the their them then there these they this those
through to too under until up us very was we were what when where which while who will with would
you your add article chart charts create describe description diagram document draw explain figure
give graph illustrate illustrated illustration image images include make paint paragraph photo
photograph photos picture pictures plot search show showing shows story tell text two three use
using view write
的 了 和 是 在 一 有 我 你 请 与 及 或 个
"""
_STOPWORDS = frozenset(_COMMON.split())


def prose(text: str) -> str:
    """Text without markup such as `<image>`."""
    return MARKUP.sub(" ", text).strip()


def all_words(text: str) -> list[str]:
    """Every word, in order, in lower case."""
    return WORD.findall(prose(text).lower())


def subject(text: str) -> frozenset[str]:
    """The subject words: lower case, without plural s and without common words."""
    return frozenset(_singular(word) for word in all_words(text) if word not in _STOPWORDS)


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared words over the size of the smaller set, 0 to 1; 0 when either is empty.

    A set of one or two words counts as three, or as many as the other has: one word does not make a subject.
    """
    smaller, larger = sorted((len(one), len(other)))
    return len(one & other) / min(larger, max(3, smaller)) if smaller else 0.0


def announces(text: str) -> bool:
    """Whether the prose announces a picture ("here is an image"), mentions tags, or fences them."""
    return bool(ANNOUNCEMENT.search(text))


def grade(value: float, steps: Sequence[float]) -> int:
    """The number of the ascending `steps` that `value` reaches."""
    return sum(value >= step for step in steps)


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
