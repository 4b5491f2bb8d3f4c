"""The numbers of a document that verl gets."""

from __future__ import annotations

from rewards_documents import BLOB, F, I, P, X, document

from policy.rollout.reward_info import reward_info
from policy.scoring import Score
from rewards import formulas
from rewards.facts import Facts
from rewards.verdicts import ImageVerdict, TextVerdict


def info(*parts, **task) -> dict[str, float]:
    made = document(*parts, **task)
    formula = formulas.get("grounded")
    return reward_info(made, formula.score(Facts.of(made), TextVerdict.best(), ImageVerdict.best()))


def test_terms_counts_and_hacks_of_a_document() -> None:
    same = I("search", blob=BLOB)
    parts = (P("A grey heron."), same, same, F("code"), X(), X(too_many=True))
    found = info(*parts, image_num=2, tools=("search",))
    assert found["terms/r_num"] == 0.0  # 0.5, less 0.3 for each of three tags above two
    assert found["terms/T"] == 1.0
    assert 0 < found["terms/L"] < 1
    assert found["document/images"] == 2
    assert found["document/text_chars"] == len("A grey heron.")
    assert {name: found[f"tools/{name}/attempts"] for name in ("search", "code", "edit")} == {
        "search": 2, "code": 1, "edit": 0,
    }  # fmt: skip
    assert (found["tools/search/successes"], found["tools/code/successes"]) == (2, 0)
    caught = {name: found[f"caught/{name}"] for name in ("repeated", "unchanged", "too_many")}
    assert caught == {"repeated": 1, "unchanged": 0, "too_many": 1}


def test_a_term_that_is_not_in_the_sum_is_missing() -> None:
    found = info(P("words"), image_num=-1)
    assert {"terms/M", "terms/T"}.isdisjoint(found)
    assert found["terms/r_num"] == 1.0


def test_a_formula_of_another_package_needs_no_terms() -> None:
    found = reward_info(document(P("words")), Score(reward=0.5, breakdown={"formula": "brief"}))
    assert found["reward"] == 0.5
    assert not [name for name in found if name.startswith(("terms/", "caught/"))]
