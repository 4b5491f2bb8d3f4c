"""The words that docs/delivery.md tells operators to search for are in the log messages."""

from __future__ import annotations

import inspect
import re

import pytest
from celery.worker import request
from celery.worker.consumer import consumer
from places import REPOSITORY

PAGE = (REPOSITORY / "docs" / "delivery.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Log messages")[2].partition("\n## ")[0]
WORDS = re.findall(r"^\| `([^`]+)` \|", TABLE, re.MULTILINE)
LOGGED = re.compile(r"(?:logger\.\w+|Requeued)\((.*?)\)\n", re.DOTALL)


@pytest.mark.parametrize("words", WORDS)
def test_an_operator_finds_the_words_in_a_log(words: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "workers").rglob("*.py")]
    messages = [message for source in sources for message in LOGGED.findall(source)]
    assert any(
        words in message for message in [*messages, inspect.getsource(consumer), inspect.getsource(request)]
    )
    assert len(WORDS) >= 8
