"""Text of a model or of a service costs time linear in its length: twice the text, at most 2.5 times the CPU.

The one place with an assertion about time. It counts the CPU of this process, the best of five rounds.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable

import pytest
from rewards_documents import I, P, document

from evaluation.authors.chunks import EventStream, UnreadableStream
from evaluation.pages.view import prose
from evaluation.payloads import RubricPayload
from evaluation.rubric.rules import judge as ask
from evaluation.settings import RubricSettings
from policy.document import Tag
from policy.grammar.python_text import strings
from policy.grammar.tag_body import MAX_CHARS
from policy.grammar.tags import TagReader, parse_tag
from rewards.judges import rules
from rewards.judges.fence import neutral
from rewards.judges.payloads import JudgeTextPayload
from rewards.verdicts import TextVerdict
from workers import images
from workers.errors import JobError
from workers.providers.http import api
from workers.providers.http.client import check_url
from workers.providers.search import serpapi
from workers.text import full_text
from workers.tools.code import unfenced

ROUNDS, LEAST_S, MOST, TRIES = 5, 0.05, 2.5, 3
LENGTH = 48_000  # in threes, so that a run of quotes reads alike at each length
pytestmark = pytest.mark.long
CALL = api.Call(provider="p", method="GET", url="http://localhost", deadline=0.0)


def cpu(work: Callable[[str], object], text: str, times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        work(text)
    return time.process_time() - began


def growth(work: Callable[[str], object], short: str, long: str) -> float:
    """How much more CPU the long text costs, in as many calls as make the short one last.

    Other processes empty the caches of this one, so a measurement above the bound is made again.
    """
    once = max(cpu(work, short, 1), 1e-6)
    times = 1 + int(LEAST_S / once)
    found = 0.0
    for _ in range(TRIES):
        gc.collect()
        gc.disable()
        try:
            rounds = [(cpu(work, short, times), cpu(work, long, times)) for _ in range(ROUNDS)]
        finally:
            gc.enable()
        found = min(late for _, late in rounds) / min(early for early, _ in rounds)
        if found <= MOST:
            break
    return found


def code_tag(code: str) -> str:
    return "{'source': 'code', 'description': 'd', 'params': {'code': '" + code + "'}}"


def read_tag(body: str) -> object:
    assert len(body) <= MAX_CHARS
    return parse_tag(body, index=0, inputs=0)


def in_pieces(size: int) -> Callable[[str], object]:
    def work(text: str) -> None:
        reader = TagReader(0)
        for at in range(0, len(text), size):
            reader.feed(text[at : at + size])
        reader.close()

    return work


def judged(code: str) -> object:
    chart = I("code").model_copy(
        update={"tag": Tag(source="code", description="d", params={"code": "# don't: " + code})}
    )
    return rules.judge_text(JudgeTextPayload.of(document(P(code), chart, P(code), question=code)))


def by_criterion(text: str) -> object:
    return ask(RubricPayload.of(document(P(text)), text, RubricSettings()))


def streamed(text: str) -> object:
    stream, data = EventStream(), text.encode()
    return [stream.feed(data[at : at + 16]) for at in range(0, len(data), 16)] + stream.close()


def refusing(work: Callable[[str], object]) -> Callable[[str], object]:
    """The work, whether it refuses the text or not."""

    def tried(text: str) -> object:
        try:
            return work(text)
        except (JobError, ValueError, UnreadableStream):
            return None

    return tried


def found(text: str) -> object:
    entry = {"original": "http://h/" + text, "title": text, "thumbnail": text, "link": text}
    return serpapi.candidates(CALL, {"images_results": [entry] * 4}, text, 4)


def refused(text: str) -> object:
    answer = {"error": {"code": text, "type": text, "message": text}}
    api.refused(CALL, 400, answer)
    return api.failure(CALL, 400, {"Retry-After": text[:8000]}, json.dumps(answer).encode())


def verdict(text: str) -> object:
    return TextVerdict.read(api.parsed(text))


STREAMS = {
    "text": "ab c\n",
    "angles": "<",
    "opening marks": "<imgen>",
    "opening marks and space": "<imgen>  ",
    "empty tags": "<imgen></imgen>",
    "tags without end": "<imgen>{'a",
    "code spans": "`<imgen>{'",
    "thoughts": "x <think>",
    "half characters": "\ud800",
}
TAGS = {
    "backslashes": "\\a",
    "line breaks": "\\n",
    "apostrophes": "'",
    "quotes": '"',
    "almost ends": "'}, 'description': 'x",
    "sums": "'+'",
    "comments": "'#",
    "strings that go on": '"\\\n',
    "escaped quotes": '\\"\\n',
    "formulas": '"$\\theta\\n',
    "half characters": "\\ud800",
    "any script": "销'",
}
BODIES = {
    "braces": "{",
    "keys": "{'source': 'x', ",
    "params": "{'params': {",
    "joined": "{'a'",
    "triple quotes": "'''",
    "comments": "# x\n",
    "open comments": "/*",
    "space": " ",
    "sums": "('a'+",
}


def repeated(unit: str, length: int) -> str:
    return unit * (length // len(unit))


@pytest.mark.parametrize("unit", STREAMS.values(), ids=STREAMS)
def test_tags_in_a_stream(unit):
    assert growth(in_pieces(1), repeated(unit, LENGTH // 4), repeated(unit, LENGTH // 2)) <= MOST


@pytest.mark.parametrize("unit", ["<imgen></imgen>", "<imgen>{}</imgen>", "<imgen>  ", "x <think>"])
def test_tags_at_once(unit):
    assert growth(in_pieces(10**9), repeated(unit, LENGTH // 2), repeated(unit, LENGTH)) <= MOST


@pytest.mark.parametrize("begin", ["<imgen>{'", "<imgen>", "<think>", "a <think>", "a\n<think>"])
def test_an_unclosed_mark(begin):
    text = repeated("ab <im\n", LENGTH)
    assert growth(in_pieces(4), begin + text, begin + text * 2) <= MOST


@pytest.mark.parametrize("unit", ["\u200d", "\u200b", "\u200d\u200b", "<", "<|", "[", "⟦"])
def test_text_in_the_fence_of_a_judge(unit):
    assert growth(neutral, repeated(unit, LENGTH), repeated(unit, 2 * LENGTH)) <= MOST


@pytest.mark.parametrize("unit", TAGS.values(), ids=TAGS)
def test_the_code_of_a_tag(unit):
    texts = [code_tag(repeated(unit, length)) for length in (LENGTH // 2, LENGTH)]
    assert growth(read_tag, *texts) <= MOST


@pytest.mark.parametrize("unit", BODIES.values(), ids=BODIES)
def test_the_dictionary_of_a_tag(unit):
    texts = ["{" + repeated(unit, length) for length in (LENGTH // 2, LENGTH)]
    assert growth(read_tag, *texts) <= MOST


@pytest.mark.parametrize("unit", ["\\a", '\\"\n', "'", '"\\\n', "\n#'", "here image ", "<a", "the heron's "])
def test_judges_by_rules(unit):
    short, long = (repeated(unit + "x ", length) for length in (10_000, 20_000))
    assert growth(judged, short, long) <= MOST


def test_a_judge_of_criteria():
    text = repeated("the heron's nest ", 10_000)
    assert growth(by_criterion, text, text * 2) <= MOST


def test_the_strings_of_code():
    text = repeated('"\n\\"\n', 2 * LENGTH)
    assert growth(lambda code: list(strings(code)), text, text * 2) <= MOST


@pytest.mark.parametrize("unit", [" ", " \n", "```\n", "`"])
def test_code_fences(unit):
    text = repeated(unit, LENGTH)
    assert growth(unfenced, "```\n" + text, "```\n" + text * 2) <= MOST


@pytest.mark.parametrize("unit", ["[", "*a ", "`", "> ", "|a|\n"])
def test_prose_on_a_page(unit):
    text = repeated(unit, LENGTH // 4)
    assert growth(prose, text, text * 2) <= MOST


@pytest.mark.parametrize("unit", ["[", "9", '"\\u0041'])
@pytest.mark.parametrize("work", [verdict, streamed, refused], ids=["verdict", "stream", "refusal"])
def test_answers_of_judges_and_services(work, unit):
    text = repeated(unit, 8 * LENGTH)
    assert growth(refusing(work), '"' + text, '"' + text * 2) <= MOST


@pytest.mark.parametrize(
    ("work", "unit"),
    [
        (lambda text: check_url("http://" + text, allow_private=False), "é."),
        (lambda text: check_url("http://" + text, allow_private=False), "9"),
        (lambda text: check_url("http://h.example/" + text, allow_private=False), "../"),
        (lambda text: check_url("http://h.example/" + text, allow_private=False), "%2e"),
        (found, "fox "),
        (lambda text: full_text.matching(text, [text]), "fox "),
        (images.from_base64, "QUJD"),
    ],
    ids=["host", "digits", "path", "escapes", "results", "titles", "base64"],
)
def test_addresses_and_results(work, unit):
    text = repeated(unit, LENGTH)
    assert growth(refusing(work), text, text * 2) <= MOST
