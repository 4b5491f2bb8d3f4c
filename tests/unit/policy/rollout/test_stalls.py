"""A text that ran out of its time is cut if the generator kept writing, and masked if it stood still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.rollout.stalls import stall

HALF_HOUR = 1800.0


@pytest.mark.parametrize(
    "segments",
    [
        [(19.0, 190)] * 94,
        [(450.0, 2048)] * 3,  # 0.2 s a token
        [(15.0, 1500)] * 100,  # 300 s without a token, a sixth of the time
        [(10.0, 100)] * 140 + [(200.0, 100)] * 2,
    ],
    ids=["many segments", "slow", "a short stall", "two short stalls"],
)
def test_a_text_that_was_being_written_is_cut(segments):
    assert stall(segments, 2048, HALF_HOUR) is None


@pytest.mark.parametrize(
    ("segments", "seconds"),
    [
        ([(2.0, 100)] * 3, 1671),  # 1794 s, less three times the 41 s of 2,048 tokens
        ([(2.0, 100)] * 150 + [(500.0, 100)] * 3, 1320),  # three times 440 s
        ([(2.0, 100)] * 3 + [(1000.0, 900)], 1611),  # 940 and 671 s
    ],
    ids=["the open segment", "complete segments", "both"],
)
def test_a_text_during_which_the_generator_stood_still_is_masked(segments, seconds):
    why = f"the generator stood still for {seconds} s and did not complete the text"
    assert stall(segments, 2048, HALF_HOUR) == why


def test_a_text_without_a_complete_segment_is_masked():
    assert stall([], 2048, HALF_HOUR) == "the generator completed no segment"


@given(st.lists(st.integers(1, 2048), min_size=1, max_size=40), st.floats(0.001, 10), st.floats(0, 1))
def test_a_text_at_an_even_pace_is_cut_however_slow(lengths, per_token, part):
    segments = [(per_token * tokens, tokens) for tokens in lengths]
    assert stall(segments, 2048, per_token * (sum(lengths) + part * 2048)) is None
