"""Remove characters that no reader sees from text that one model wrote and another reads.

Invisible characters can hold a second text (tags of Unicode, variation selectors), reverse the order of a
line, or split a control token so that a filter misses it. Kept are the line break, the tab, the selector of
colour emoji, and the joiners of Persian words and emoji: one of several, and none beside an ASCII character.
"""

from __future__ import annotations

from workers.text.patterns import INVISIBLE, JOINERS, LOOSE_JOINER


def visible(text: str) -> str:
    """`text` without its invisible characters."""
    return LOOSE_JOINER.sub("", JOINERS.sub(r"\1", INVISIBLE.sub("", text)))
