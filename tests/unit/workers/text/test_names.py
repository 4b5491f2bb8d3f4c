"""Suggestions for misspelt names."""

import pytest

from workers.text.names import near_names


@pytest.mark.parametrize(
    ("wanted", "expected"), [("batch_sise", ["batch_size"]), ("batch", ["batch_size"]), ("zzz", [])]
)
def test_the_most_similar_name_is_suggested(wanted, expected):
    assert near_names(wanted, ["lr", "batch_size", "steps"]) == expected


def test_nothing_is_suggested_without_names():
    assert near_names("a", [], prefix=4) == []


def test_ids_that_share_the_longest_beginning_come_first():
    ids = ["5f3a11_0", "5f3a11_1", "9c0000_0"]
    assert near_names("5f3a11_7", ids, most=1, prefix=4) == ["5f3a11_0", "5f3a11_1"]


def test_a_beginning_that_is_too_short_counts_for_nothing():
    assert near_names("5f9999", ["5f3a11"], cutoff=0.9, prefix=4) == []
