"""The tables of a run's documents and prompts."""

from __future__ import annotations

from coordinator.watch import documents


def test_terms_counts_and_tools_are_shown_first_and_last() -> None:
    steps = [
        {"terms/M": 0.25, "tools/code/attempts": 1.0, "caught/repeated": 0.5, "critic/score/mean": 0.1},
        {"tools/code/attempts": 1.5, "caught/repeated": 0.25},
        {"terms/M": 0.75, "tools/code/attempts": 2.0, "caught/repeated": 0.0},
    ]
    (table,) = documents.tables(steps)
    assert table.rows == [
        ["image judge (M)", "0.25", "0.75"],
        ["share with a repeated image", "0.5", "0"],
        ["code: attempts", "1", "2"],
    ]


def test_a_run_without_such_metrics_has_no_table() -> None:
    assert documents.tables([]) == documents.tables([{"critic/score/mean": 0.5}]) == []


def test_prompts_have_a_table_of_their_own() -> None:
    (table,) = documents.tables([{"prompts/signal": 0.5}, {"prompts/signal": 1.0, "prompts/untried": 12}])
    assert table.title == "Prompts"
    assert table.rows == [
        ["share of the groups with different rewards", "0.5", "1"],
        ["prompts without a result", "12", "12"],
    ]
