"""The completion store."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.resume.completions import Completion, CompletionSegment, CompletionStore


@pytest.fixture
def texts(tmp_path):
    return CompletionStore(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(-1e4, 0.0, width=32)), max_size=20))
def test_ids_and_log_probabilities_are_loaded_as_saved(tokens):
    piece = CompletionSegment.of([token for token, _ in tokens], [prob for _, prob in tokens], (1, 2))
    again = CompletionSegment.model_validate_json(piece.model_dump_json())
    assert list(zip(again.ids(), again.probs(), strict=True)) == tokens


def test_a_log_probability_keeps_the_precision_of_training():
    [kept] = CompletionSegment.of([1], [-0.1], None).probs()
    assert kept == struct.unpack("f", struct.pack("f", -0.1))[0]


def test_a_text_is_kept_until_its_group_is_removed(texts):
    text = Completion(
        time=5.0,
        pieces=(
            CompletionSegment.of([7], [-1.0], (0, 3)),
            CompletionSegment.of([8, 9], [-2.0, -3.0], (2, 4)),
        ),
    )
    for name in ("a-b_0", "a-b_1.2", "c_0"):
        texts.save(name, text)
    assert texts.load("a-b_1.2") == text
    assert text.versions == (0, 4)
    texts.forget({"a-b"})
    assert [texts.load(name) for name in ("a-b_0", "a-b_1.2", "c_0")] == [None, None, text]


def test_a_damaged_text_loads_as_none(texts, tmp_path):
    texts.save("a_0", Completion(time=5.0, pieces=()))
    (tmp_path / "texts" / "a" / "a_0.json").write_bytes(b"")
    assert texts.load("a_0") is None
