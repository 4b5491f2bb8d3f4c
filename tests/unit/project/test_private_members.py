"""How many private names of Celery, kombu and billiard the program uses."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

from places import REPOSITORY

FOLDER = REPOSITORY / "workers" / "celery_app"
LIBRARIES = ("celery", "kombu", "billiard")
MOST = 8


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(trees: dict[Path, ast.Module]) -> set[str]:
    """Private names that the package itself defines or assigns."""
    found: set[str] = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return {name for name in found if private(name)}


def used(trees: dict[Path, ast.Module]) -> dict[str, set[str]]:
    """The private names of other packages that each module reads."""
    own = own_names(trees)
    return {
        path.name: {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own
        }
        for path, tree in trees.items()
    }


def overridden(path: Path) -> set[str]:
    """The private methods of a library's class that a class of this module overrides."""
    module = importlib.import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
    found: set[str] = set()
    for _, member in inspect.getmembers(module, inspect.isclass):
        if member.__module__ != module.__name__:
            continue
        bases = [base for base in member.__mro__[1:] if base.__module__.split(".")[0] in LIBRARIES]
        found |= {name for name in vars(member) if private(name) and any(hasattr(b, name) for b in bases)}
    return found


def test_at_most_eight_private_names_of_celery_kombu_and_billiard() -> None:
    trees = {path: ast.parse(path.read_text()) for path in FOLDER.rglob("*.py")}
    reads = used(trees)
    names = set().union(*reads.values(), *(overridden(path) for path in trees if path.stem != "__init__"))
    assert names, "nothing found: the test looks at the wrong place"
    assert len(names) <= MOST, sorted(names)
    assert {name for name, found in reads.items() if found} <= {"prefork.py"}, "one module per library"
