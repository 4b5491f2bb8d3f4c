"""The strings that chart code draws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.judges.chart_text import drawn_strings


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('plt.title("Nests by year")', {"Nests by year"}),
        ('fig, ax = plt.subplots()\nax.set_title("a")\nax.set(xlabel="b", ylabel="c")', {"a", "b", "c"}),
        ('names = ["reed", "fish"]\nplt.bar(names, [1, 2])', {"reed", "fish"}),
        ('rows = {"reed": 1}\nkeys = list(rows)\nplt.xticks(range(1), keys)', {"reed"}),
        ('for name in ["reed"]:\n    plt.text(0, 0, name)', {"reed"}),
        ('year = 3\nplt.title(f"Nests in {year}" + " and reeds")', {"Nests in ", " and reeds"}),
        ('df = pd.DataFrame({"reed": [1]})\nsns.barplot(data=df)', {"reed"}),
        ('df = pd.DataFrame({"reed": [1]})\ndf.plot(x="reed", title="Nests")', {"reed", "Nests"}),
        ('plt.plot([1], label="reed")\nplt.legend()', {"reed"}),
        ('def draw(text):\n    plt.title("Nests")\ndraw(1)', {"Nests"}),
        ('if True:\n    plt.title("a")\nelse:\n    plt.title("b")', {"a"}),
        ('n = 1\nplt.title("a" if n > 1 else "b")', {"a", "b"}),
        ('    plt.title("a")\n    plt.xlabel("b")', {"a", "b"}),
        ('```python\nplt.title("a")\n```', {"a"}),
    ],
)
def test_what_reaches_a_call_that_draws_is_on_the_chart(code: str, expected: set[str]) -> None:
    assert set(drawn_strings(code)) == expected


@pytest.mark.parametrize(
    "code",
    [
        'about = "grey heron nest"\nplt.plot([1, 2])',
        '"""Grey heron nest"""\nplt.plot([1, 2])',
        'print("grey heron nest")\nlen("grey heron")',
        '# plt.title("grey heron")\nplt.plot([1, 2])',
        'if False:\n    plt.title("grey heron")',
        'while 0:\n    plt.title("grey heron")',
        'plt.title("grey heron") if 0 else None',
        'plt.title("grey heron" if False else 7)',
        'if True:\n    plt.plot([1])\nelse:\n    plt.title("grey heron")',
        'if 1 > 2:\n    plt.title("grey heron")',
        'for one in []:\n    plt.title("grey heron")',
        'def never():\n    plt.title("grey heron")',
        'plt.plot([1, 2], label="grey heron")',
        'plt.plot([1, 2], color="red", marker="o")',
        'str.title("grey heron")',
        'notes = {"heron": "nest"}\nother = notes\nplt.plot([1])',
        'plt.title("grey heron"',
        "",
    ],
)
def test_a_literal_that_is_not_drawn_does_not_count(code: str) -> None:
    assert drawn_strings(code) == []


@pytest.mark.parametrize(
    "code",
    [
        "(" * 50_000,
        "-" * 50_000 + "1",
        "not " * 12_000 + "1",
        "x" + ".y" * 25_000,
        "f(" * 150 + ")" * 150,
        "\0",
    ],
)
def test_code_that_the_parser_refuses_draws_nothing(code: str) -> None:
    assert drawn_strings(code) == []


def test_a_value_of_many_names_is_read_once() -> None:
    names = [f"n{n}" for n in range(3000)]
    code = "=".join(names) + '=["reed"] * 3\n' + "\n".join(f"plt.text({name})" for name in names)
    assert drawn_strings(code) == ["reed"]


@given(st.text())
def test_no_code_raises(code: str) -> None:
    assert isinstance(drawn_strings(code), list)
