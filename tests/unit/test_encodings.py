"""Text is read and written in UTF-8 by name, whatever the locale, and by whoever imports the packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("workers", "policy", "rewards", "evaluation", "coordinator")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def text_mode(call: ast.Call) -> bool:
    """Whether a call reads or writes text in a file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "read_text":
        return not call.args  # with a name, it is of a distribution
    if name == "write_text":
        return True
    if name not in ("open", "fdopen"):
        return False
    method = isinstance(call.func, ast.Attribute) and name == "open"
    if method and getattr(call.func.value, "id", "") == "os":
        return False
    given = [
        *call.args[0 if method else 1 :][:1],
        *(word.value for word in call.keywords if word.arg == "mode"),
    ]
    modes = [part.value for part in given if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    if method and (call.args and not modes):
        return False  # another kind of open, as of an image
    return not any("b" in mode for mode in modes)


def nameless(source: str) -> list[int]:
    """The lines that read or write text without naming its encoding."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and text_mode(node)
        and not any(word.arg == "encoding" for word in node.keywords)
    ]


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_the_encoding_is_named(file: Path) -> None:
    assert nameless(file.read_text(encoding="utf-8")) == [], "add encoding='utf-8'"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("p.read_text()", 1),
        ("p.read_text(errors='replace')", 1),
        ("p.write_text('x')", 1),
        ("open(p)", 1),
        ("open(p, 'w')", 1),
        ("p.open()", 1),
        ("p.open('a')", 1),
        ("os.fdopen(f, 'w')", 1),
        ("p.read_text(encoding='utf-8')", 0),
        ("p.open('rb')", 0),
        ("open(p, mode='rb')", 0),
        ("os.fdopen(f, 'wb')", 0),
        ("distribution.read_text('METADATA')", 0),
        ("Image.open(p)", 0),
        ("os.open(p, os.O_RDONLY)", 0),
        ("os.open('/proc', os.O_RDONLY)", 0),
    ],
)
def test_what_counts(source: str, found: int) -> None:
    assert len(nameless(source)) == found
