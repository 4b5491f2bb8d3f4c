"""The axioms of `rewards.formulas.grounded`, numbered as there, each on 20,000 random documents."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from reward_sketches import TOOLS, WASTED, Sketch, random_grades, random_sketch, verdicts
from rewards_documents import BLOB, F, I, P, X, document

from rewards.facts import Facts
from rewards.formula import WEIGHTS, reward
from rewards.formulas.grounded import FORMULA, places

BATCHES, BATCH = 20, 1000
SEEDS = given(st.integers(0, 2**32 - 1))
TWENTY_THOUSAND = settings(max_examples=BATCHES, deadline=None)
FORMULA_ = FORMULA()
EPSILON = 1e-12


def score(sketch: Sketch, grades: tuple[int, ...]) -> float:
    text, image = verdicts(grades)
    return reward(FORMULA_.terms(sketch.facts, text, image)[0])


def batch(seed: int) -> Iterator[tuple[random.Random, Sketch, tuple[int, ...]]]:
    rng = random.Random(seed)
    for _ in range(BATCH):
        yield rng, random_sketch(rng), random_grades(rng)


@SEEDS
@TWENTY_THOUSAND
def test_1_the_reward_is_bounded_and_the_sum_of_its_terms(seed: int) -> None:
    for _, sketch, grades in batch(seed):
        text, image = verdicts(grades)
        terms, _ = FORMULA_.terms(sketch.facts, text, image)
        held = {name: value for name, value in terms.items() if value is not None}
        assert all(0 <= value <= 1 for value in held.values()), (sketch, grades)
        total = sum(WEIGHTS[n] * v * (held["r_num"] if n == "M" else 1) for n, v in held.items())
        assert abs(reward(terms) - total / sum(WEIGHTS[name] for name in held)) < EPSILON, (sketch, grades)


@SEEDS
@TWENTY_THOUSAND
def test_2_a_higher_grade_never_lowers_it(seed: int) -> None:
    for rng, sketch, grades in batch(seed):
        axis = rng.randrange(5)
        higher = tuple(min(5, g + (n == axis)) for n, g in enumerate(grades))
        assert score(sketch, higher) >= score(sketch, grades) - EPSILON, (sketch, grades, axis)


@SEEDS
@TWENTY_THOUSAND
def test_3_a_wasted_tag_that_becomes_a_new_image_never_lowers_it(seed: int) -> None:
    for rng, sketch, grades in batch(seed):
        wasted = [n for n, (kind, _) in enumerate(sketch.tags) if kind != "new"]
        if wasted:
            repaired = sketch.change(rng.choice(wasted), "new")
            assert score(repaired, grades) >= score(sketch, grades) - EPSILON, (sketch, grades)


@SEEDS
@TWENTY_THOUSAND
def test_4_a_wasted_tag_earns_a_token_at_most(seed: int) -> None:
    for rng, sketch, grades in batch(seed):
        kind = rng.choice([kind for kind in WASTED if sketch.new or kind != "repeated"])
        worse = sketch.add(kind, "edit" if kind == "unchanged" else rng.choice(TOOLS))
        token = 0.0 if sketch.tags else 0.02
        assert score(worse, grades) <= score(sketch, grades) + token + EPSILON, (sketch, grades, kind)


@SEEDS
@TWENTY_THOUSAND
def test_5_one_more_image_never_lowers_it_while_fewer_are_there_than_requested(seed: int) -> None:
    for rng, sketch, grades in batch(seed):
        if sketch.new < sketch.asked < 99:
            more = sketch.add("new", rng.choice(TOOLS))
            assert score(more, grades) >= score(sketch, grades) - EPSILON, (sketch, grades)


@SEEDS
@TWENTY_THOUSAND
def test_6_abstaining_is_neutral_where_images_are_free(seed: int) -> None:
    for rng, _, grades in batch(seed):
        some = none = Sketch(asked=0, required=(), prose=True, tags=())
        for _ in range(rng.randint(1, 10)):
            some = some.add("new", rng.choice(TOOLS))
        if min(grades[1:]) >= 3:
            assert score(some, grades) >= score(none, grades) - EPSILON, (some, grades)
        if max(grades[1:]) <= 3:
            assert score(some, grades) <= score(none, grades) + EPSILON, (some, grades)


@SEEDS
@TWENTY_THOUSAND
def test_7_using_a_required_tool_never_lowers_it_while_there_is_a_place(seed: int) -> None:
    for rng, sketch, grades in batch(seed):
        if sketch.missing_tools and len(sketch.tags) < places(sketch.facts):
            more = sketch.add("new", rng.choice(sketch.missing_tools))
            assert score(more, grades) >= score(sketch, grades) - EPSILON, (sketch, grades)


@SEEDS
@TWENTY_THOUSAND
def test_8_a_tag_never_raises_it_where_no_image_is_allowed(seed: int) -> None:
    for rng, sketch, grades in batch(seed):
        forbidden = Sketch(asked=-1, required=sketch.required, prose=sketch.prose, tags=sketch.tags)
        more = forbidden.add(rng.choice(("new", "failed", "invalid")), rng.choice(TOOLS))
        assert score(more, grades) <= score(forbidden, grades) + EPSILON, (forbidden, grades)


@SEEDS
@TWENTY_THOUSAND
def test_9_a_document_without_prose_and_image_earns_nothing(seed: int) -> None:
    for _, sketch, grades in batch(seed):
        tags = tuple(("failed", tool) if kind == "new" else (kind, tool) for kind, tool in sketch.tags)
        empty = Sketch(asked=sketch.asked, required=sketch.required, prose=False, tags=tags)  # type: ignore[arg-type]
        assert score(empty, grades) == 0, (empty, grades)


def test_a_sketch_counts_like_the_document_that_it_stands_for() -> None:
    same = I("search", blob=BLOB)
    parts = (P("words"), same, same, I("edit", unchanged=True), F("code"), X(), X(too_many=True))
    kinds = ("new", "repeated", "unchanged", "failed", "invalid", "refused")
    tools = ("search", "search", "edit", "code", "diffusion", "diffusion")
    sketch = Sketch(2, ("search", "edit"), True, tuple(zip(kinds, tools, strict=True)))
    assert sketch.facts == Facts.of(document(*parts, image_num=2, tools=("search", "edit")))
