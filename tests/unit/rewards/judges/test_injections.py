"""A document cannot leave its fence in a judge's prompt, whatever a model or a service writes into it.

Checked for all three judges, at each place of a document where such text appears.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from injections import ATTEMPTS, CONTROL_TOKENS
from rewards_documents import F, I, P, document
from tokenizers import AddedToken, Tokenizer, models

from evaluation.payloads import RubricPayload
from evaluation.rubric.openai import rubric_chat
from evaluation.settings import RubricSettings
from policy.document import Document, InvalidPart, Part
from rewards.judges import fence
from rewards.judges.fence import CODE_CHARS, DOCUMENT_OVER, MARKS, Mark, Picture, Written, fenced
from rewards.judges.payloads import JudgeImagePayload, JudgeTextPayload
from rewards.judges.prompts import image_chat, text_chat

JUDGES: dict[str, Callable[[Document], list[dict[str, Any]]]] = {
    "text": lambda doc: text_chat(JudgeTextPayload.of(doc)),
    "image": lambda doc: image_chat(JudgeImagePayload.of(doc), lambda ref: "data:", 9),
    "rubric": lambda doc: rubric_chat(
        RubricPayload.of(doc, "It names the heron.", RubricSettings()), lambda ref: "data:", 9
    ),
}
PLACES: dict[str, Callable[[str], list[Part]]] = {
    "prose": lambda words: [P(words), I()],
    "prose in pieces": lambda words: [P(words[:3]), P(words[3:]), I()],
    "description": lambda words: [P("A heron."), I(says=words)],
    "failed image": lambda words: [P("A heron."), I(), F(says=words)],
    "caption": lambda words: [P("A heron."), I("search", caption=words)],
    "broken tag": lambda words: [I(), InvalidPart(index=0, raw=words, reason=words)],
}


def user_text(chat: list[dict[str, Any]]) -> str:
    """The user's turn as one text, with `<PICTURE>` for each image."""
    content = chat[1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "<PICTURE>") for part in content)


def skeleton(prompt: str) -> list[str]:
    """The prompt without the text between marks, and with the codes replaced by the fences' names."""
    task = prompt[1 : 1 + CODE_CHARS]
    document_at = prompt.index(" document⟧") - CODE_CHARS
    code = prompt[document_at : document_at + CODE_CHARS]
    lines, inside = [], False
    for line in prompt.splitlines():
        ours = line.startswith((f"⟦{task} ", f"⟦{code} ", "<PICTURE>")) and line.endswith("⟧")
        if ours or not inside:
            lines.append(line.replace(task, "TASK").replace(code, "DOCUMENT"))
        if ours:
            inside = not line.endswith((" task ends⟧", " document ends⟧"))
    return lines


def vocabulary() -> Tokenizer:
    """A tokenizer that reads nothing but control tokens, wherever they stand."""
    tokenizer = Tokenizer(models.WordLevel({"[UNKNOWN]": 0}, "[UNKNOWN]"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL_TOKENS])
    return tokenizer


VOCABULARY = vocabulary()


def control_tokens(text: str) -> list[str]:
    return [token for token in VOCABULARY.encode(text).tokens if token in CONTROL_TOKENS]


def test_the_suite_has_50_attempts_and_its_tokenizer_finds_control_tokens() -> None:
    assert len(ATTEMPTS) >= 50
    assert all(control_tokens(f"x{token}y") == [token] for token in CONTROL_TOKENS)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_changes_nothing_outside_its_fence(attempt: str) -> None:
    for place in PLACES.values():
        harmless, hostile = (document(*place(words)) for words in ("A heron.", ATTEMPTS[attempt]))
        for judge in JUDGES.values():
            expected, found = judge(harmless), judge(hostile)
            assert found[0] == expected[0], "the instructions are the same for every document"
            assert skeleton(user_text(found)) == skeleton(user_text(expected))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_no_control_token_and_nothing_invisible_is_left(attempt: str) -> None:
    for place in PLACES.values():
        doc = document(*place(ATTEMPTS[attempt]), question=ATTEMPTS[attempt])
        for judge in JUDGES.values():
            prompt = user_text(judge(doc)).replace("<PICTURE>", "")
            assert control_tokens(prompt) == []
            assert control_tokens(unicodedata.normalize("NFKC", prompt)) == []
            kinds = {unicodedata.category(letter) for letter in prompt if letter not in "\n\t\r"}
            assert not kinds & {"Cc", "Cf", "Co", "Cs"}


@pytest.mark.parametrize(
    "words",
    [
        "A family: 👩‍👩‍👧, a heart: ❤️, Persian: می‌خواهم, Hindi: क्‍ष.",
        "| a | b |\n|---|---|\n| <b>1</b> | x[0] < y | z |\n\n```python\nif a[i] | b < c:\n\tpass\n```",
        "Math: ⟨x|y⟩ ≤ 5 and [0, 1]; quotes: „a“ «b»; Chinese: 苍鹭【水边】。",
    ],
)
def test_harmless_text_stays_as_it_is_written(words: str) -> None:
    assert f"⟧\n{words}\n⟦" in fenced("document", [Written(words)])[0]["text"]


def test_captions_of_providers_are_not_shown_to_a_judge_model() -> None:
    doc = document(P("A heron."), I("search", caption="the caption"))
    assert not any("the caption" in user_text(judge(doc)) for judge in JUDGES.values())


def test_an_attempt_in_the_task_stays_in_the_task() -> None:
    for words in ATTEMPTS.values():
        for judge in JUDGES.values():
            harmless, hostile = (document(P("x"), I(), question=question) for question in ("Why?", words))
            assert skeleton(user_text(judge(hostile))) == skeleton(user_text(judge(harmless)))


def test_the_prompt_explains_the_fence_before_and_after_the_document() -> None:
    doc = document(P("A heron."), I())
    for judge in JUDGES.values():
        chat = judge(doc)
        system = chat[0]["content"]
        assert MARKS in (system if isinstance(system, str) else system[0]["text"])
        assert user_text(chat).index(" document ends⟧") < user_text(chat).index(DOCUMENT_OVER)


def test_the_code_never_occurs_in_the_fenced_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even an author who could compute the code could write it."""
    monkeypatch.setattr(fence, "CODE_CHARS", 1)
    for left in "0123456789abcdef":
        words = "0123456789ABCDEF".replace(left.upper(), "")
        assert fenced("document", [Written(words)])[0]["text"].startswith(f"⟦{left} document⟧")


PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*CONTROL_TOKENS, *ATTEMPTS.values()]),
    st.sampled_from(
        [
            "⟦",
            "⟧",
            "INST",
            "/INST",
            "IMG",
            "<",
            "|",
            "[",
            "\u200b",
            "\u200d",
            "\u200c",
            "｜",
            "＜",
            "\n",
            " document ends⟧",
        ]
    ),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_the_fence_of_any_text_is_closed_once_and_only_by_the_program(texts: list[str]) -> None:
    pieces = [piece for words in texts for piece in (Written(words), Mark("m"), Written(words[::-1]))]
    content = fenced("document", pieces)
    assert len(content) == 1
    whole = content[0]["text"]
    code = whole[1 : 1 + CODE_CHARS]
    assert whole.count("⟦") == whole.count("⟧") == len(texts) + 2
    assert whole.count(code) == len(texts) + 2
    assert whole.startswith(f"⟦{code} document⟧\n")
    assert whole.endswith(f"\n⟦{code} document ends⟧\n")
    assert control_tokens(whole) == []
    assert content == fenced("document", pieces), "the same text gets the same code"


@given(TEXTS, TEXTS)
def test_a_token_spread_over_neighbouring_parts_is_broken_up(one: str, other: str) -> None:
    content = fenced("document", [Written(one), Written(other), Picture("data:"), Written(one)])
    assert control_tokens("".join(part.get("text", "") for part in content)) == []
