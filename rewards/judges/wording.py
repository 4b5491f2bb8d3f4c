"""Words that carry a subject, and how much two texts share of them. For the rule-based judges; deterministic.

Invariants: no input raises; the literal text `<image>` and tags carry no words; Chinese and Japanese
characters count singly, since no space separates their words.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.text.patterns import ANNOUNCEMENT, MARKUP, WORD

# Too common to name a subject, or words of the assignment and not of its subject.
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
_EMPTY = frozenset(_COMMON.split())


def prose(text: str) -> str:
    """Text without markup such as `<image>`."""
    return MARKUP.sub(" ", text).strip()


def all_words(text: str) -> list[str]:
    """Every word, in order, in lower case."""
    return WORD.findall(prose(text).lower())


def subject(text: str) -> frozenset[str]:
    """The words that carry the subject: lower case, plural s cut, without those that say nothing."""
    return frozenset(_singular(word) for word in all_words(text) if word not in _EMPTY)


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared words over the smaller set's size, 0 to 1. A set of one or two words counts as three, or as
    many as the other has, so that a single word does not cover a subject. 0 when either is empty."""
    smaller, larger = sorted((len(one), len(other)))
    return len(one & other) / min(larger, max(3, smaller)) if smaller else 0.0


def announces(text: str) -> bool:
    """Whether the prose announces a picture ("here is an image"), speaks of tags, or fences them."""
    return bool(ANNOUNCEMENT.search(text))


def grade(value: float, steps: Sequence[float]) -> int:
    """How many of the ascending `steps` `value` reaches."""
    return sum(value >= step for step in steps)


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
