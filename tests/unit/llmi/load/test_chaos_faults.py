"""The timeline of faults: complete in every round, and the same for the same seed."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from llmi.load.chaos.faults import LASTS_S, PAUSE_S, Kind, timeline


@given(seed=st.integers(0, 2**32 - 1), rounds=st.integers(1, 3))
def test_every_round_holds_every_fault_once(seed, rounds):
    faults = list(islice(timeline(seed), rounds * len(Kind)))
    for first in range(0, len(faults), len(Kind)):
        assert {fault.kind for fault in faults[first : first + len(Kind)]} == set(Kind)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_faults(seed):
    assert list(islice(timeline(seed), 40)) == list(islice(timeline(seed), 40))


@given(seed=st.integers(0, 2**32 - 1))
def test_times_and_picks_lie_in_their_ranges(seed):
    for fault in islice(timeline(seed), 40):
        least, most = LASTS_S.get(fault.kind, (0.0, 0.0))
        assert least <= fault.lasts_s <= most
        assert PAUSE_S[0] <= fault.pause_s <= PAUSE_S[1]
        assert 0 <= fault.pick < 1
