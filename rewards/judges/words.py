"""Subject words of a text, how many two texts share, and whether a text is prose. For the rule-based judges.

Invariants: deterministic; no input raises; the literal text `<image>` and tags have no words; each Chinese or
Japanese character is a word, since no space separates words there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

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
# Words that hold sentences together, in English, German, French, Spanish, Italian, Portuguese and Dutch.
_FUNCTIONS = """
a an and are as at be but by for from has have he her his in is it its not of on or our she so that the
their then there they this to was we were when which who will with you your
das dem den der des die ein eine einer er es ist mit nicht sich sie und von wie zu zum zur im am auf für
au aux ce dans du elle en est et il je la le les mais ne ou par pas pour qui que sa se son sur un une
al como con del el ella lo los las más no por su sus os da do das dos em uma um na não para
che di della gli nel per sono una è een het van op te dat voor zijn niet met
"""
_FUNCTION = frozenset(_FUNCTIONS.split())
_DETERMINERS = {"a", "an", "the", "its", "his", "her", "their", "our", "your"}
_PREPOSITIONS = {"of", "in", "on", "at", "to", "by", "for", "from", "with"}
_JOINTS = _PREPOSITIONS | {
    "a",
    "an",
    "the",
    "and",
    "or",
    "but",
    "as",
    "than",
    "then",
    "that",
    "is",
    "are",
    "was",
}
_LISTING = {"and", "or", "und", "oder", "et", "ou"}
_FEWEST = 8  # words that can be told to be no sentence
_LEAST = 0.12  # share of function words; in sentences it is above 0.3
_LISTED = 0.2  # share of "and" and "or"
_GRAM = 4


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


def is_soup(text: str, question: str) -> bool:
    """Whether the text is words without sentences: few function words, articles before prepositions, a list.

    Grammar is not checked, so subject words with function words between them are no soup ("heron is nest and
    grey in water"). Only for a question in a language of which the function words are known.
    """
    words, asked = all_words(text), all_words(question)
    if len(words) < _FEWEST or not asked or _share(asked, _FUNCTION) < _LEAST:
        return False
    after = [following for word, following in pairwise(words) if word in _DETERMINERS]
    broken = sum(word in _JOINTS for word in after) > 1 + len(after) // 4
    return broken or _share(words, _FUNCTION) < _LEAST or _share(words, _LISTING) > _LISTED


def is_copied(text: str, question: str) -> bool:
    """Whether most of the text stands in the question, word for word."""
    grams, asked = _grams(all_words(text)), set(_grams(all_words(question)))
    return sum(gram in asked for gram in grams) * 2 > len(grams)


def announces(text: str) -> bool:
    """Whether the prose announces a picture ("here is an image"), mentions tags, or fences them."""
    return bool(ANNOUNCEMENT.search(text))


def grade(value: float, steps: Sequence[float]) -> int:
    """The number of the ascending `steps` that `value` reaches."""
    return sum(value >= step for step in steps)


def _share(words: Sequence[str], of: Collection[str]) -> float:
    return sum(word in of for word in words) / len(words)


def _grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)]


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
