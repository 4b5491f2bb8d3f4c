"""When a run pauses for a provider and when it resumes: by example, and as properties of any history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy.admission.pause import Outage

OPTIONS = {"share": 0.5, "for_s": 60.0, "probe_s": 30.0, "recent": 4}


def ended(outage: Outage, *usable: bool, in_pause: bool = False) -> None:
    for one in usable:
        outage.group_ended(one, in_pause=in_pause)


def paused() -> Outage:
    """Since 60."""
    outage = Outage(**OPTIONS)
    ended(outage, True, False, False, False)
    outage.update(0, True)
    assert outage.update(60, True)
    return outage


def test_it_pauses_when_the_share_was_too_large_for_long_enough():
    outage = Outage(**OPTIONS)
    ended(outage, True, True, False, False)
    assert not outage.update(0, True)
    ended(outage, False)
    assert [outage.update(at, True) for at in (100, 159.9, 160)] == [False, False, True]


def test_usable_groups_in_between_restart_the_time():
    outage = Outage(**OPTIONS)
    ended(outage, False, False, False)
    outage.update(0, True)
    ended(outage, True, True)
    outage.update(50, True)
    ended(outage, False, False, False)
    assert [outage.update(at, True) for at in (60, 119, 120)] == [False, False, True]


def test_it_never_pauses_without_a_provider_outage():
    outage = Outage(**OPTIONS)
    ended(outage, False, False, False, False)
    assert not any(outage.update(at, down) for at, down in ((0, False), (100, False), (200, None)))
    assert outage.update(201, True), "the time has long passed"


def test_it_resumes_when_no_provider_is_down_and_forgets_the_groups_before():
    outage = paused()
    assert not outage.update(70, False)
    assert not any(outage.update(at, True) for at in (71, 200))


def test_it_resumes_when_a_group_submitted_in_the_pause_is_usable():
    outage = paused()
    ended(outage, True)  # submitted before
    assert outage.update(70, True)
    ended(outage, True, in_pause=True)
    assert not outage.update(71, True)


def test_a_redis_that_does_not_answer_ends_no_pause():
    assert paused().update(1000, None)


def test_one_probe_group_at_a_time_is_submitted_in_a_pause():
    outage = paused()
    assert [
        outage.should_probe(at, open_groups) for at, open_groups in ((89, 0), (90, 1), (90, 0), (91, 0))
    ] == [
        False,
        False,
        True,
        False,
    ]
    outage.update(100, False)
    assert not outage.should_probe(1000, 0)


STEPS = st.lists(
    st.tuples(
        st.floats(0, 50),
        st.lists(st.booleans(), max_size=3),
        st.sampled_from([True, False, None]),
        st.integers(0, 2),
    ),
    max_size=60,
)


@given(STEPS)
def test_any_history(steps):
    outage, now, failed_at, probed = Outage(**OPTIONS), 0.0, 0.0, []
    was = False
    for passed, groups, down, open_groups in steps:
        now += passed
        ended(outage, *groups)
        unusable = outage.unusable
        on = outage.update(now, down)
        if on and not was:
            assert down is True
            assert unusable > OPTIONS["share"]
            assert now - failed_at >= OPTIONS["for_s"]
        if down is False:
            assert not on
        if was and not on:
            assert down is False
        if unusable <= OPTIONS["share"] or on:
            failed_at = now
        if outage.should_probe(now, open_groups):
            assert on
            assert not open_groups
            assert not probed or now - probed[-1] >= OPTIONS["probe_s"]
            probed.append(now)
        was = on
