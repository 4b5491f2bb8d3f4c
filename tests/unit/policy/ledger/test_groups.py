"""The summary of a run's groups: on small ledgers by hand, and as properties of any ledger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.document import Document, Task, TextPart
from policy.ledger.entries import Abandoned, RolloutEnded, Scored, Started
from policy.ledger.groups import dropped_by_quarter, group_summary
from policy.ledger.reader import read_ledger
from policy.ledger.records import Ledger
from policy.ledger.writer import LedgerWriter
from policy.scoring import Score

TASK = Task(question="Write.")


@pytest.fixture
def ledger(tmp_path):
    """Writes `{rollout: (seconds it took, state)}`, and reads it back. The state `abandoned` is that of a
    rollout whose text was not complete when the run died."""

    def write(rollouts: dict[str, tuple[float, str | None]], failed: tuple[str, ...] = ()) -> Ledger:
        writer = LedgerWriter(tmp_path, "test")
        for name, (seconds, state) in rollouts.items():
            writer.append(Started(time=100.0, rollout_id=name, task=TASK))
            if state == "abandoned":
                writer.append(Abandoned(time=100.0 + seconds, rollout_id=name, reason="it died"))
                continue
            document = Document(rollout_id=name, task=TASK, parts=(TextPart(text="words"),))
            writer.append(Scored(time=100.0 + seconds, document=document, score=Score(reward=0.5), tokens=1))
            if state:
                writer.append(RolloutEnded(time=200.0, rollout_id=name, state=state))
        for uid in failed:
            writer.group_failed(uid, step=1)
        writer.close()
        return read_ledger(tmp_path)

    return write


def test_every_group_is_counted_by_its_result(ledger):
    groups = group_summary(
        ledger(
            {
                "a_0": (1, "trained"), "a_1": (1, "trained"), "a_2": (1, "masked"),
                "b_0": (1, "masked"), "b_1": (1, "masked"), "b_2": (1, "masked"),
                "c_0": (1, "stale"), "c_1": (1, "masked"),
                "d_0": (1, None), "d_1": (1, "masked"),
                "e_0": (1, "cancelled"), "e_1": (1, "masked"),
            },
            failed=("d",),
        )
    )  # fmt: skip
    assert (groups.n_valid, groups.n_total) == (2, 3)
    assert groups.replaced == {"failed": 1, "stale": 1, "too_few": 1}


def test_a_group_that_was_dropped_without_a_signal_is_counted_as_that(tmp_path, ledger):
    writer = LedgerWriter(tmp_path, "trainer")
    writer.group_dropped("b", step=1, reason="no_signal")
    writer.close()
    groups = group_summary(ledger(dict.fromkeys(("a_0", "a_1", "b_0", "b_1"), (1, "masked"))))
    assert groups.replaced == {"no_signal": 1, "too_few": 1}


def test_a_rollout_that_a_resume_replaced_is_in_no_count(ledger):
    groups = group_summary(
        ledger(
            {
                "a_0": (1, "trained"), "a_1": (1, "abandoned"), "a_1.1": (1, "masked"),
                "b_0": (1, "abandoned"), "b_0.1": (1, "masked"), "b_1": (1, "masked"),
            }
        )
    )  # fmt: skip
    assert (groups.n_valid, groups.n_total) == (1, 2)
    assert groups.replaced == {"too_few": 1}


def test_a_group_is_as_slow_as_its_slowest_rollout(ledger):
    rollouts = {}
    for place, state in enumerate(["trained", "trained", "trained", "stale"]):
        rollouts |= {f"g{place}_0": (1.0, state), f"g{place}_1": (10.0 * place, state)}
    assert group_summary(ledger(rollouts)).dropped_by_latency == [0, 0, 0, 1]


def test_shares_of_eight_groups_by_hand():
    written = [(1.0, False), (2.0, False), (3.0, True), (4.0, False)]
    written += [(5.0, False), (6.0, True), (7.0, True), (8.0, True)]
    assert dropped_by_quarter(written[::-1]) == [0.0, 0.5, 0.5, 1.0]


def test_fewer_than_four_groups_have_no_quarters():
    assert dropped_by_quarter([(1.0, True)] * 3) == []


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), min_size=4))
def test_quarters_hold_every_group_once(written):
    shares = dropped_by_quarter(written)
    sizes = [len(written) * (q + 1) // 4 - len(written) * q // 4 for q in range(4)]
    assert max(sizes) - min(sizes) <= 1
    dropped = sum(share * size for share, size in zip(shares, sizes, strict=True))
    assert dropped == pytest.approx(sum(gone for _, gone in written))
