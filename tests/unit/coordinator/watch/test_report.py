"""What a run's page leaves out."""

from __future__ import annotations

import pytest

from coordinator.watch.report import largest


def test_the_causes_that_took_longest_are_shown_and_nothing_of_the_others_is_lost():
    causes = {"a": 1.0, "b": 5.0, "c": 0.5, "d": 3.0, "e": 2.0, "f": 0.25}
    shown = largest(causes)
    assert list(shown) == ["b", "d", "e", "a", "everything else"]
    assert sum(shown.values()) == pytest.approx(sum(causes.values()))


def test_few_causes_are_shown_as_they_are():
    assert largest({"a": 1.0, "b": 2.0}) == {"b": 2.0, "a": 1.0}
    assert largest({}) == {}
