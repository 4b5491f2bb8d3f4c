"""When two texts share a content word: the rule that selects search results."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.text.full_text import STOP_WORDS, matching


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("a fox in snow", "Red foxes of Hokkaido"),
        ("Café at night", "CAFE de Flore"),
        ("the Eiffel-tower", "eiffel, from below"),
        ("東京", "夜の 東京"),
        ("fox", "fox \ud83d"),
    ],
)
def test_a_word_is_shared_in_any_form_case_or_accent(query: str, text: str) -> None:
    assert matching(query, ["", text, "a whale"]) == {1}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("a photo of the sea", "A photo of the moon"),
        ("cat", "location"),
        ("the", "the"),
        ("", ""),
        ('?! "NEAR(', "whale"),
        ("\ud83d", "\ud83d"),
    ],
)
def test_stop_words_signs_and_parts_of_words_are_not_shared(query: str, text: str) -> None:
    assert matching(query, [text]) == set()


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=60), st.lists(st.text(st.characters(), max_size=60), max_size=4))
def test_no_text_can_break_it(query: str, texts: list[str]) -> None:
    found = matching(f"{query} heron", [*texts, "grey herons"])
    assert len(texts) in found
    assert found <= set(range(len(texts) + 1))
    assert matching(" ".join(sorted(STOP_WORDS)), texts) == set()
