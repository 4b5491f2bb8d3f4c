"""The strings that chart code draws: those that reach a call which writes, through variables or directly.

A string that is assigned and never used, or stands in code that visibly never runs, is not on the chart: a
function that nothing names, a branch that a constant or an expression of constants decides against, and a
loop over an empty list, tuple or string. Nothing else is recognised, such as a variable that is false or
`range(0)`.

Invariants: nothing is evaluated; no input raises; time is linear in the length of the code. Code that
Python's parser refuses, also for its depth, draws nothing.
"""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Iterable, Iterator

from workers.text import fences

# Methods of Matplotlib, seaborn and pandas that write something, or name what they draw.
_METHODS = """
annotate area bar bar_label barh barplot boxplot clabel countplot draw_networkx errorbar figtext fill_between
heatmap hist histplot kdeplot legend line lineplot loglog matshow pie plot regplot scatter scatterplot
semilogx semilogy set set_label set_text set_title set_xlabel set_xticklabels set_xticks set_ylabel
set_yticklabels set_yticks stackplot stem step suptitle table text title violinplot
xlabel xticks ylabel yticks
"""
_WRITING = frozenset(_METHODS.split())
_SHOWN = {"columns", "data", "index", "label", "labels", "names", "s", "text", "tick_label", "title"}
_SHOWN |= {"x", "xlabel", "y", "ylabel"}
_BUILTINS = frozenset(dir(builtins))


def drawn_strings(code: str) -> list[str]:
    """The strings of `code` that it draws."""
    text = textwrap.dedent(fences.unfenced(code).strip("\r\n"))
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    nodes = list(_running(tree))
    calls = [node for node in nodes if isinstance(node, ast.Call) and _writes(node)]
    legend = any(call.func.attr == "legend" for call in calls if isinstance(call.func, ast.Attribute))
    values = _assigned(nodes)
    found: list[str] = []
    stack = [part for call in calls for part in _arguments(call, legend)]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.Name):
            stack += values.pop(node.id, ())
        stack += _children(node)
    return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of code that can run, as far as the module says."""
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                stack += ast.iter_child_nodes(node) if name in named else ()
            case _:
                stack += _children(node)


def _children(node: ast.AST) -> Iterable[ast.AST]:
    """The children of a node that can run. Of an expression of constants, such as 1 > 2, no branch can."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if _is_constant(test):
            if not isinstance(test, ast.Constant):
                return ()
            branch = node.body if test.value else node.orelse
            return [branch] if isinstance(branch, ast.AST) else branch
        case ast.For(iter=ast.List(elts=[]) | ast.Tuple(elts=[]) | ast.Constant(value="")):
            return node.orelse
    return ast.iter_child_nodes(node)


def _is_constant(test: ast.expr) -> bool:
    """Whether an expression has no name in it."""
    return not any(isinstance(part, ast.Name) for part in ast.walk(test))


def _writes(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return attribute in _WRITING and name not in _BUILTINS  # not str.title("...")
        case ast.Attribute(attr=attribute):
            return attribute in _WRITING
    return False


def _arguments(call: ast.Call, legend: bool) -> Iterator[ast.AST]:
    """The arguments that are drawn. Labels are drawn by a legend, those of a pie by itself."""
    yield from call.args
    for keyword in call.keywords:
        if keyword.arg in _SHOWN and (keyword.arg != "label" or legend):
            yield keyword.value


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.AST]]:
    """The values that are assigned to each name, or iterated over by it."""
    values: dict[str, list[ast.AST]] = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = [(target, value) for target in targets]
            case (
                ast.AnnAssign(target=target, value=ast.AST() as value)
                | ast.AugAssign(target=target, value=value)
            ):
                pairs = [(target, value)]
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                pairs = [(target, value)]
            case ast.NamedExpr(target=target, value=value):
                pairs = [(target, value)]
            case _:
                continue
        for target, value in pairs:
            for name in ast.walk(target):
                if isinstance(name, ast.Name):
                    values.setdefault(name.id, []).append(value)
    return values
