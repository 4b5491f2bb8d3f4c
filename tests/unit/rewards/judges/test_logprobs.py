"""Expected scores from the log-probabilities of an answer's tokens, against a plain reference."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.judges.served.logprobs import STEP, expected

SCALE = range(1, 6)
VERDICT = {"text": 4, "image_tags": 2}
EVEN = dict.fromkeys("12345", 0.2)

Distribution = dict[str, float]


def token(text: str, distribution: Distribution | None = None, before: str = "", after: str = "") -> Any:
    """One token of an answer; `distribution`: the probabilities of what may stand between `before` and
    `after`.
    """
    listed = {f"{before}{value}{after}": p for value, p in (distribution or {}).items()}
    top = [{"token": t, "logprob": math.log(p) if p else -9999.0, "bytes": None} for t, p in listed.items()]
    own = math.log(listed[text]) if listed.get(text) else -0.01
    return {"token": text, "logprob": own, "bytes": None, "top_logprobs": top}


def answer(tokens: list[Any]) -> dict[str, Any]:
    content = "".join(one["token"] for one in tokens)
    message = {"role": "assistant", "content": content}
    return {"choices": [{"message": message, "logprobs": {"content": tokens}}]}


def read(tokens: list[Any], verdict: dict[str, int] = VERDICT) -> dict[str, float]:
    whole = answer(tokens)
    return expected(whole, whole["choices"][0]["message"]["content"], verdict, SCALE)


def reference(distribution: Distribution) -> float:
    allowed = {int(value): p for value, p in distribution.items() if value in EVEN}
    return sum(score * p for score, p in allowed.items()) / sum(allowed.values())


def near(value: float) -> Any:
    return pytest.approx(value, abs=STEP / 2 + 1e-9)


def usual(text: Distribution, tags: Distribution) -> list[Any]:
    """The tokens of Qwen's tokenizer."""
    return [
        *map(token, ['{"', "text", '":', " "]), token("4", text),
        *map(token, [",", ' "', "image", "_tags", '":', " "]), token("2", tags),
        *map(token, ["}", "<|im_end|>"]),
    ]  # fmt: skip


def test_a_score_is_the_mean_of_the_scale_by_the_judges_probabilities() -> None:
    tokens = usual({"4": 0.75, "5": 0.25}, {"2": 1.0})
    whole = answer(tokens)
    content = '{"text": 4, "image_tags": 2}'  # without the token that ends the turn
    assert expected(whole, content, VERDICT, SCALE) == {"text": 4.25, "image_tags": 2.0}


def test_tokens_that_no_verdict_can_hold_are_left_out() -> None:
    stray = {"4": 0.3, "5": 0.1, "6": 0.2, "45": 0.1, "4.5": 0.1, '"': 0.1, "": 0.1, "four": 0.0}
    assert read(usual(stray, {"2": 0.5, " 2": 0.1, "2,": 0.1, "1": 0.3})) == {"text": 4.25, "image_tags": 1.7}


def test_a_digit_outside_the_listed_tokens_counts_with_its_own_probability() -> None:
    tokens = usual({"5": 0.25, "1": 0.25}, {"2": 1.0})
    tokens[4]["logprob"] = math.log(0.5)
    assert read(tokens)["text"] == 3.5


def test_an_alternative_that_begins_otherwise_is_another_answer() -> None:
    tokens = [token('{"text'), token('":4', {'":4': 0.5, '":5': 0.25, '_"1': 0.25}), token("}")]
    assert read(tokens, {"text": 4}) == {"text": 4.35}


def test_scores_stand_behind_a_thought_that_has_scores_too() -> None:
    """Servers that cut thoughts off the message keep their tokens in the list."""
    thought = [token("<think>Perhaps "), *usual({"4": 1.0}, {"2": 1.0})[:-1], token("? �</think>\n\n")]
    whole = answer([*thought, *usual({"4": 0.5, "5": 0.5}, {"2": 1.0})])
    content = '{"text": 4, "image_tags": 2}'
    assert expected(whole, content, VERDICT, SCALE) == {"text": 4.5, "image_tags": 2.0}


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"content": None},
        {"content": []},
        {"content": [{"token": "4"}]},
        {"content": [{"logprob": -1.0}]},
        {"content": [{"token": f"token_id:{n}", "logprob": -1.0, "top_logprobs": []} for n in range(12)]},
        {"content": [token('{"text": 4, "image_tags": 3}')]},
        "none",
    ],
)
def test_an_answer_without_usable_probabilities_has_no_expected_scores(logprobs: object) -> None:
    content = '{"text": 4, "image_tags": 2}'
    whole = {"choices": [{"message": {"content": content}, "logprobs": logprobs}]}
    assert expected(whole, content, VERDICT, SCALE) == {}


def test_one_axis_without_probabilities_leaves_all_integers() -> None:
    tokens = usual({"4": 1.0}, {"2": 1.0})
    tokens[11] |= {"logprob": None, "top_logprobs": []}
    assert read(tokens) == {}


def test_a_field_that_stands_twice_has_no_expected_score() -> None:
    first = [token('{"text": '), token("4", {"4": 1.0}), token(", ")]
    assert read([*first, token('"text": '), token("4", {"4": 0.5, "5": 0.5}), token("}")], {"text": 4}) == {}


DISTRIBUTION = st.fixed_dictionaries(
    {digit: st.floats(0.001, 1.0) for digit in "12345"},
    optional={other: st.floats(0.0, 1.0) for other in ("0", "6", "12", '"', " ", "x")},
)


SPACE = st.sampled_from(["", " ", "\n  "])


@st.composite
def verdicts(draw: st.DrawFn) -> tuple[dict[str, int], list[Any], dict[str, Distribution]]:
    """A verdict, cut into tokens as any tokenizer might, with a distribution for each score."""
    axes = draw(st.lists(st.sampled_from(["text", "image_tags", "tone", "t"]), min_size=1, unique=True))
    verdict = {axis: draw(st.integers(1, 5)) for axis in axes}
    shares = {axis: draw(DISTRIBUTION) for axis in axes}
    tokens: list[Any] = []
    words = draw(st.sampled_from(["{", "{ ", "a thought {}\n{"]))
    for axis, score in verdict.items():
        words += f'"{axis}":{draw(SPACE)}'
        cut = draw(st.integers(0, len(words)))
        tokens += [token(words[at : min(at + 3, cut)]) for at in range(0, cut, 3)]
        end = "}" if axis == axes[-1] else ","
        own = draw(st.sampled_from(["", end]))
        tokens.append(token(f"{words[cut:]}{score}{own}", shares[axis], words[cut:], own))
        words = end.removesuffix(own or " ") + ("" if end == "}" else draw(SPACE))
    return verdict, [*tokens, token(words)], shares


@given(verdicts())
def test_any_cut_into_tokens_gives_the_mean_of_the_reference(case: Any) -> None:
    verdict, tokens, shares = case
    whole = answer(tokens)
    content = whole["choices"][0]["message"]["content"].removeprefix("a thought {}\n")
    assert json.loads(content) == verdict
    found = expected(whole, content, verdict, SCALE)
    assert found == {axis: near(reference(shares[axis])) for axis in verdict}
    assert all(1 <= score <= 5 for score in found.values())


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "logprobs", "content", "token", "logprob", "top_logprobs"]), inner
            )
        ),
        max_leaves=20,
    )
)
def test_no_shape_of_an_answer_raises(content: object) -> None:
    for shape in (content, {"choices": [{"logprobs": {"content": content}}]}):
        found = expected(shape, '{"text": 4}', {"text": 4}, SCALE)  # type: ignore[arg-type]
        assert all(1 <= score <= 5 for score in found.values())
