"""Remove characters that no reader sees from text that one model wrote and another reads.

Invisible characters can hold a second text (tags of Unicode, variation selectors of plane 14), reverse the
order of a line, or split a control token so that a filter misses it. Kept are the line break, the tab, and
the joiners of Persian words and emoji; a joiner beside an ASCII character joins nothing and is removed.
"""

from __future__ import annotations

from workers.text.patterns import INVISIBLE, LOOSE_JOINER


def visible(text: str) -> str:
    """`text` without its invisible characters."""
    return LOOSE_JOINER.sub("", INVISIBLE.sub("", text))
