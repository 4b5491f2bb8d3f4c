"""Whether a query and a text match: they share a content word, in any of its English forms.

One rule for captions of the local library and titles of a web search, both with SQLite's FTS5.

Invariants: stop words do not count; query text becomes a list of quoted terms only, so that no query
is a syntax error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing

from workers.text.patterns import TERM

TOKENIZER = "porter unicode61 remove_diacritics 2"
MAX_TERMS = 64
# Words that match nearly any text, or that name the picture and not its subject.
# fmt: off
STOP_WORDS = frozenset([
    "a", "about", "above", "across", "after", "all", "an", "and", "any", "are", "around", "as", "at",
    "be", "before", "behind", "below", "beside", "between", "but", "by", "during", "each", "for",
    "from", "had", "has", "have", "he", "her", "his", "how", "i", "in", "into", "is", "it", "its",
    "like", "me", "my", "near", "next", "no", "not", "of", "on", "or", "our", "over", "she", "so",
    "some", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
    "through", "to", "under", "up", "very", "was", "we", "were", "what", "when", "where", "which",
    "while", "who", "with", "you", "your",
    "actual", "authentic", "image", "images", "photo", "photograph", "photographs", "photos", "pic",
    "pics", "picture", "pictures", "real", "show", "showing", "shown", "shows", "view", "views",
])
# fmt: on


def match_expression(query: str) -> str:
    """The query's content words as FTS5 terms, each quoted, joined by OR; "" when there are none."""
    terms = dict.fromkeys(word for word in TERM.findall(query.lower()) if word not in STOP_WORDS)
    return " OR ".join(f'"{term}"' for term in list(terms)[:MAX_TERMS])


def matching(query: str, texts: Sequence[str]) -> set[int]:
    """Indices of the `texts` that share a content word with `query`."""
    match = match_expression(query)
    if not match:
        return set()
    readable = [text.encode(errors="replace").decode() for text in texts]  # SQLite accepts no lone surrogates
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, tokenize = '{TOKENIZER}')")
        database.executemany("INSERT INTO texts (rowid, text) VALUES (?, ?)", enumerate(readable))
        found = database.execute("SELECT rowid FROM texts WHERE texts MATCH ?", (match,))
        return {number for (number,) in found}
