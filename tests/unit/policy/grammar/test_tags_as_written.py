"""Tags, mentions of tags, thoughts and chart code as models write them (`tag_cases`)."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tag_cases import CODES, COMMENTS, JOINED, MENTIONS, TAG, THOUGHTS

from policy.document import Tag
from policy.grammar.tags import Invalid, TagReader, parse_tag, read


def shown(text: str) -> str:
    """The document's text, with @ where a tag is and ! where an invalid one is."""
    signs = {"image": "@", "invalid": "!"}
    return "".join(part.text if part.type == "text" else signs[part.type] for part in read(text, inputs=0))


@pytest.mark.parametrize(("text", "left"), MENTIONS + THOUGHTS)
def test_only_intended_marks_count(text, left):
    assert shown(text.replace("@", TAG)) == left


@pytest.mark.parametrize(("text", "left"), MENTIONS + THOUGHTS)
def test_a_mention_counts_alike_in_pieces_of_any_size(text, left):
    text = text.replace("@", TAG)
    for size in (1, 2, 3, 7):
        reader = TagReader(0)
        parts = [part for at in range(0, len(text), size) for part in reader.feed(text[at : at + size])]
        assert (*parts, *reader.close()) == read(text, inputs=0)


@pytest.mark.parametrize(
    "body",
    [
        "{'source': 'code', 'description': 'd', 'params': {'code': %s}}",
        "{'params': {'code': %s}, 'source': 'code', 'description': 'd'}",
        '{"source": "code", "params": {"code": %s}, "description": "it\'s d"}',
        "{'description': 'it's d', 'params': {'code': %s,}, 'source': 'code'}",
    ],
)
@pytest.mark.parametrize(("literal", "code"), CODES)
def test_code_is_read_as_intended(body, literal, code):
    tag = parse_tag(body.replace("%s", literal), index=0, inputs=0)
    assert isinstance(tag, Tag), tag
    assert tag.params["code"] == code


@pytest.mark.parametrize("body", COMMENTS)
def test_comments_and_layout_do_not_change_a_dictionary(body):
    tag = parse_tag(body, index=0, inputs=0)
    assert tag == Tag(source="search", description="d", params={"query": "fox"})


@pytest.mark.parametrize(
    "body",
    [
        "{'source': 'search', 'description': %s, 'params': {'query': 'fox'}}",
        "{'source': 'search', 'params': {'query': 'fox'}, 'description': %s}",
        "{'source': 'diffusion', 'description': 'd', 'params': {'prompt': %s}}",
    ],
)
@pytest.mark.parametrize(("literal", "value"), JOINED)
def test_joined_strings_are_one_string_and_other_expressions_are_invalid(body, literal, value):
    tag = parse_tag(body.replace("%s", literal), index=0, inputs=0)
    if value is None:
        assert isinstance(tag, Invalid), tag
        assert tag.reason
    else:
        assert isinstance(tag, Tag), tag
        assert value in (tag.description, tag.params.get("prompt"))


STATEMENTS = st.sampled_from(
    [
        "plt.plot([1, 2, 3])",
        "plt.title('Sales')",
        'plt.title("Sales")',
        "plt.title('')",
        'plt.xlabel("")',
        "plt.xlabel(' ')",
        'plt.title("Sales\\nby year")',
        "plt.ylabel('a\\nb')",
        'plt.title(r"$\\frac{1}{2}$")',
        'plt.title("$\\theta$ and $\\nu$")',
        "# don't",
        '# a "quoted" remark',
        'plt.text(0, 0, "it\'s")',
        "d = {'source': 'a', 'prompt': 'b'}",
        'd = {"source": "a", "params": {"code": "b"}}',
        "s = 'a' + 'b'",
        "s = 'a, ' 'b'",
        "plt.legend(['a', 'b'], title='c')",
        "for x in range(3):\n    plt.bar(x, 2)",
        "plt.title('销售 – 50 %')",
        "print(f'{x}')",
    ]
)
PROGRAMS = st.lists(STATEMENTS, min_size=1, max_size=6).map(lambda lines: "\n".join([*lines, "plt.grid()"]))
STYLES = {
    "python": repr,
    "json": json.dumps,
    "json of any script": lambda code: json.dumps(code, ensure_ascii=False),
    "three quotes": lambda code: f"'''{code}'''",
    "three double quotes": lambda code: f'"""\n{code}\n"""',
    "naive, on many lines": lambda code: f"'{code}'",
    "naive, on many lines, double": lambda code: f'"{code}"',
    "naive, on one line": lambda code: "'" + code.replace("\n", "\\n") + "'",
    "naive, on one line, double": lambda code: '"' + code.replace("\n", "\\n") + '"',
}


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@given(program=PROGRAMS)
def test_programs_survive_every_style_of_quoting(style, program):
    body = "{'source': 'code', 'description': 'd', 'params': {'code': " + STYLES[style](program) + "}}"
    tag = parse_tag(body, index=0, inputs=0)
    assert isinstance(tag, Tag), tag
    assert str(tag.params["code"]).strip() == program


PIECES = st.sampled_from(
    [
        "@",
        "a",
        " ",
        "\n",
        "`",
        "'",
        "<imgen>",
        "</imgen>",
        "<think>",
        "</think>",
        "{",
        "{'",
        "'}}",
        "fox",
        "<",
        "</i",
    ]
)


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(PIECES, max_size=14), data=st.data())
def test_any_mixture_of_marks_reads_alike_in_any_pieces(pieces, data):
    text = "".join(TAG if piece == "@" else piece for piece in pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = TagReader(0)
    parts = [part for start, end in pairwise([0, *cuts, len(text)]) for part in reader.feed(text[start:end])]
    assert (*parts, *reader.close()) == read(text, inputs=0)


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(["<imgen>", "`<imgen>`", "<think>", "`</imgen>`", "it's", "a"]), max_size=8
    )
)
def test_a_tag_after_any_mention_is_read(words):
    text = " ".join(["Begin:", *words, TAG, "End."])
    images = [part for part in read(text, inputs=0) if part.type == "image"]
    assert len(images) == 1
    assert shown(text).endswith("@ End.")
