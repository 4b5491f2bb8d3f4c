"""The tag grammar: what a model plausibly writes is read, all else is invalid with a reason."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.document import ImagePart, InvalidPart, Tag, TextPart
from policy.grammar.prompts import system_prompt
from policy.grammar.tag_body import MAX_CHARS
from policy.grammar.tags import Invalid, TagReader, parse_tag, read

DIFFUSION = {"source": "diffusion", "description": "A fox", "params": {"prompt": "a red fox"}}


def tag(body: str, *, index: int = 0, inputs: int = 0) -> Tag:
    result = parse_tag(body, index=index, inputs=inputs)
    assert isinstance(result, Tag), result
    return result


def reason(body: str, *, index: int = 0, inputs: int = 0) -> str:
    result = parse_tag(body, index=index, inputs=inputs)
    assert isinstance(result, Invalid), result
    return result.reason


def code_tag(code: str) -> str:
    return "{'source': 'code', 'description': 'd', 'params': {'code': " + code + "}}"


@pytest.mark.parametrize(
    ("source", "params"),
    [
        ("diffusion", {"prompt": "a fox"}),
        ("search", {"query": "Kyoto"}),
        ("code", {"code": "plt.plot([1, 2])"}),
        ("edit", {"img_index": 0, "prompt": "at night"}),
    ],
)
@pytest.mark.parametrize(
    "write", [repr, json.dumps, lambda body: json.dumps(body, indent=2, ensure_ascii=False)]
)
def test_every_source_is_read_as_python_and_as_json(source, params, write):
    body = {"source": source, "description": "d", "params": params}
    assert tag(write(body), index=1).model_dump() == body


def test_white_space_around_and_inside_a_tag_is_fine():
    assert tag("  \n" + json.dumps(DIFFUSION, indent=4) + "\t\n ").params == {"prompt": "a red fox"}


@pytest.mark.parametrize(
    ("body", "description", "value"),
    [
        (
            "{'source': 'search', 'description': 'the fox's den', 'params': {'query': 'the fox's den'}}",
            "the fox's den",
            "the fox's den",
        ),
        (
            "{'source': 'search', 'description': 'It's 'calm', they say', 'params': {'query': 'x'}}",
            "It's 'calm', they say",
            "x",
        ),
        ('{"source": "search", "description": "a "big" fox", "params": {"query": "y"}}', 'a "big" fox', "y"),
        ("{'source': 'search', 'params': {'query': 'owl's nest'}, 'description': 'd'}", "d", "owl's nest"),
        ("{“source”: “search”, “description”: “d’s”, “params”: {“query”: “x”}}", "d’s", "x"),
        (
            "{‘source’: ‘search’, ‘description’: ‘the fox’s den’, ‘params’: {‘query’: ‘x’}}",
            "the fox’s den",
            "x",
        ),
        ("{'source': 'search', 'description': 'd', 'params': {'query': 'fox's',},}", "d", "fox's"),
    ],
)
def test_apostrophes_and_quotes_inside_strings_are_recovered(body, description, value):
    found = tag(body)
    assert (found.description, found.params["query"]) == (description, value)


@pytest.mark.parametrize(
    ("literal", "code"),
    [
        (repr("plt.title(\"a\")\nplt.plot([1], label='b')"), "plt.title(\"a\")\nplt.plot([1], label='b')"),
        ("'plt.title('a')\nplt.bar([1], [2])'", "plt.title('a')\nplt.bar([1], [2])"),
        ("'d = {'x': 1, 'y': [2]}\nplt.bar(d['x'], 3)'", "d = {'x': 1, 'y': [2]}\nplt.bar(d['x'], 3)"),
        ("'''plt.title('it''s')\nplt.plot([1])'''", "plt.title('it''s')\nplt.plot([1])"),
        ('"""\nplt.title("a")\n"""', '\nplt.title("a")\n'),
        (r"'plt.title(\'x\')\nplt.plot([1])'", "plt.title('x')\nplt.plot([1])"),
        (r"'plt.title(\"a\\nb\")'", 'plt.title("a\\nb")'),
        (r"'plt.title(\"$\\frac{1}{2}$\")'", 'plt.title("$\\frac{1}{2}$")'),
        ("'plt.title('Umsätze – 売上 €')'", "plt.title('Umsätze – 売上 €')"),
        ("'Umsätze = \"売上\"'", 'Umsätze = "売上"'),
        (r"r'plt.title(\"\d\")'", r"plt.title(\"\d\")"),
        ("('plt.plot([1])\\n' 'plt.title(1)')", "plt.plot([1])\nplt.title(1)"),
        ("'x = 1  # it's a comment\n# more'", "x = 1  # it's a comment\n# more"),
    ],
)
def test_code_survives_with_quotes_line_breaks_backslashes_and_any_script(literal, code):
    assert tag(code_tag(literal)).params["code"] == code


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a fox", "must start with {"),
        ("[1, 2]", "must start with {"),
        ("{'a', 'b'}", "holds a set"),
        ("{'source': ", "neither a Python dictionary nor JSON"),
        ("{}", "source: is missing"),
        ("{'source': 'search', 'params': {'query': 'x'}}", "description: is missing"),
        ("{'source': 'search', 'description': 'd'}", "params: is missing"),
        ("{'source': 'magic', 'description': 'd', 'params': {}}", "search, diffusion, code, edit"),
        ("{'source': None, 'description': 'd', 'params': {}}", "source"),
        ("{'source': 'search', 'description': 'd', 'params': {}}", "params.query: is missing"),
        ("{'source': 'search', 'description': 'd', 'params': {'prompt': 'x'}}", "query: is missing"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': 'x', 'n': 1}}", "params.n"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': 'x'}, 'k': 1}", "k: is not one"),
        (
            "{'source': 'search', 'description': '', 'params': {'query': 'x'}}",
            "description: must not be blank",
        ),
        ("{'source': 'search', 'description': 'd', 'params': {'query': '  '}}", "query: must not be blank"),
        ('{"source": "search", "description": null, "params": {"query": "x"}}', "description"),
        ('{"source": "search", "description": "d", "params": {"query": true}}', "query"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': ['x']}}", "query"),
        ("{'source': 'search', 'description': 'd', 'params': 'x'}", "params"),
        ("{'source': 'search', 'description': 'd', 'params': {1: 'x'}}", "params"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': f'{x}'}}", "neither"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': open('x')}}", "neither"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': 'x'}", "neither"),
        ("{'source': 'search', 'description': 'd', 'params': {'query': 'x'}} and more", "neither"),
    ],
)
def test_everything_else_is_invalid_and_says_why(body, part):
    assert part in reason(body)


@pytest.mark.parametrize("value", ["True", "false", "null", "1.0", "'0'", "-1"])
def test_an_image_index_must_be_a_whole_number(value):
    assert "img_index" in reason(
        f"{{'source': 'edit', 'description': 'd', 'params': {{'img_index': {value}, 'prompt': 'p'}}}}",
        index=3,
    )


@pytest.mark.parametrize(
    ("img_index", "index", "inputs", "valid"),
    [(0, 0, 0, False), (0, 1, 0, True), (1, 1, 0, False), (0, 0, 1, True), (2, 1, 2, True), (3, 1, 2, False)],
)
def test_an_edit_points_backwards_only_counting_inputs_first(img_index, index, inputs, valid):
    body = repr({"source": "edit", "description": "d", "params": {"img_index": img_index, "prompt": "p"}})
    assert isinstance(parse_tag(body, index=index, inputs=inputs), Tag) is valid


def test_invalid_tags_count_when_an_edit_points_back():
    edit = repr({"source": "edit", "description": "d", "params": {"img_index": 1, "prompt": "p"}})
    parts = read(f"<imgen>{DIFFUSION!r}</imgen><imgen>oops</imgen><imgen>{edit}</imgen>", inputs=0)
    assert [type(part) for part in parts] == [ImagePart, InvalidPart, ImagePart]
    assert [part.index for part in parts] == [0, 1, 2]


def test_text_and_tags_keep_their_order_and_every_character():
    text = f"One\n<imgen>{DIFFUSION!r}</imgen>\n\ntwo <image> <imgen >"
    parts = read(text, inputs=0)
    assert [type(part) for part in parts] == [TextPart, ImagePart, TextPart]
    assert parts[2].text == "\n\ntwo <image> <imgen >"


def test_a_tag_that_never_closes_is_invalid():
    parts = read("a <imgen>{'source': 'search'", inputs=0)
    assert parts[1] == InvalidPart(
        index=0, raw="<imgen>{'source': 'search'", reason="the tag is never closed"
    )


def test_the_first_closing_tag_ends_the_tag_even_inside_code():
    parts = read(f"<imgen>{code_tag(repr('x = 1 # </imgen>'))}</imgen>", inputs=0)
    assert isinstance(parts[0], InvalidPart)
    assert parts[0].raw.count("</imgen>") == 1


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"<think>maybe <imgen>{DIFFUSION!r}</imgen></think>done", "done"),
        ("a<think>b</think>c<think>d</think>e", "ace"),
        ("<think>never closed <imgen>", None),
        ("a</think>b", "a</think>b"),
        ("a<thi", "a<thi"),
    ],
)
def test_thoughts_are_removed_before_tags_are_read(text, left):
    assert read(text, inputs=0) == ((TextPart(text=left),) if left else ())


def test_a_tag_is_complete_when_it_closes():
    reader = TagReader(0)
    body = f"Look:\n<imgen>{DIFFUSION!r}</imgen>"
    before = [part for char in body[:-1] for part in reader.feed(char)]
    assert before == [TextPart(text="Look:\n")]
    assert [type(part) for part in reader.feed(">")] == [ImagePart]
    assert reader.close() == []


def test_the_examples_of_the_system_prompt_are_valid():
    example = system_prompt()[system_prompt().index("Example:") :]
    images = [part for part in read(example, inputs=0) if not isinstance(part, TextPart)]
    assert len(images) == 2
    assert all(isinstance(part, ImagePart) for part in images)


@pytest.mark.parametrize(
    "body",
    [
        "{" * MAX_CHARS,
        "{" + "-" * 100_000 + "1: 2}",
        "{'a': " + "1+" * 50_000 + "1}",
        "{'a': " + "(" * 190 + ")" * 190 + "}",
        "{# '\n" + "-" * 100_000 + "1}",
        "{f'{" + "-" * 100_000 + "1}'}",
        r"{'''\''' " + "-" * 100_000 + "'''}",
        "{" + "\\'" * 50_000,
        "{" + "'''" * 30_000,
        "{'source': '" + "' ,  " * 20_000,
        "{'source': '" + "' }" * 30_000,
        "{'source': '" + " " * 100_000 + "x",
        "{'a': " + "9" * 5_000 + "}",
        "{'a': '" + "x" * (MAX_CHARS + 1) + "'}",
        "{'a\x00': 1}",
        "{'\ud800': '\\ud800'}",
    ],
)
def test_hostile_tags_are_refused(body):
    assert reason(body)


PIECES = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="{}[]()'\":,\\ \n<>#-1aNf", max_size=40),
    st.sampled_from(
        [
            "<imgen>",
            "</imgen>",
            "<think>",
            "</think>",
            "<image>",
            "<imgen",
            "</",
            repr(DIFFUSION),
            json.dumps(DIFFUSION),
            "{'source': 'search', 'description': 'it's', 'params': {'query': '",
            "'}}",
            "'params': {",
            "True",
            "null",
            "'img_index': 0",
            "\ud800",
            "\x00",
        ]
    ),
)
ANSWERS = st.lists(PIECES, max_size=12).map("".join)


def without_thoughts(text: str) -> set[str]:
    """The text with any of its thoughts left out: all possible contents of a document."""
    at = text.find("<think>")
    if at < 0:
        return {text}
    end = text.find("</think>", at)
    rest = without_thoughts(text[end + 8 :]) if end >= 0 else {""}
    kept = {"<think>" + left for left in without_thoughts(text[at + 7 :])}
    return {text[:at] + left for left in rest | kept}


@settings(max_examples=300, deadline=None)
@given(ANSWERS, st.integers(0, 3))
def test_no_text_raises_and_nothing_is_lost_or_counted_twice(text, inputs):
    parts = read(text, inputs=inputs)
    clean = re.sub("[\ud800-\udfff]", "�", text)
    left = "".join(part.text if isinstance(part, TextPart) else part.raw for part in parts)
    assert left in without_thoughts(clean)
    tags = [part for part in parts if not isinstance(part, TextPart)]
    assert [part.index for part in tags] == list(range(len(tags)))
    for part in tags:
        type(part).model_validate_json(part.model_dump_json())


@settings(max_examples=300, deadline=None)
@given(ANSWERS, st.data())
def test_feeding_in_any_pieces_gives_the_same_parts(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = TagReader(1)
    parts = [
        part
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for part in reader.feed(text[start:end])
    ]
    assert (*parts, *reader.close()) == read(text, inputs=1)


WRITTEN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda text: text.strip() and not re.search(r"</?(imgen|think)>", text)
)


# Of code that Python could not read, what was meant may be something else than what was written.
CODE = WRITTEN.filter(lambda text: not set(text) & set("\\'\"") or not set(text) & set("\\\n\r\a\b\f\v\t"))


@settings(max_examples=200, deadline=None)
@given(WRITTEN, CODE, st.sampled_from([repr, json.dumps, lambda body: json.dumps(body, ensure_ascii=False)]))
def test_every_well_formed_tag_returns_its_exact_values(description, code, write):
    body = {"source": "code", "description": description, "params": {"code": code}}
    assert tag(write(body)).model_dump() == body


# Two quotes in a row would be two adjacent Python strings, which Python joins.
PROSE = st.from_regex(r"[ab](?:[ab ,.\n]|[ab ,.]'(?!\s*')){0,20}\.", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(PROSE, PROSE)
def test_prose_with_apostrophes_is_recovered_from_bad_quoting(description, query):
    body = f"{{'source': 'search', 'description': '{description}', 'params': {{'query': '{query}'}}}}"
    found = tag(body)
    assert (found.description, found.params["query"]) == (description, query)
