"""What hostile services and posters write, as hypothesis strategies: any JSON, and what is nearly right.

JSON is given as text, since some of it (half characters, NaN, a nesting of thousands) is only text.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

DEEP = "nested deeply"  # stands for a nesting that no reader of JSON follows to its end
_TEXT = st.text(st.characters(), max_size=12)
_NESTED = "[" * 20_000 + "]" * 20_000


@functools.cache
def json_values(*words: str) -> st.SearchStrategy[Any]:
    """Any JSON: half characters, huge numbers, NaN and deep nesting too, and now and then one of `words`."""
    odd = [None, True, False, 10**400, -(10**20), 1e308, float("nan"), float("inf"), -0.0, DEEP, *words]
    return st.recursive(
        st.sampled_from(odd) | st.integers(-3, 5) | _TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
        max_leaves=6,
    )


def as_text(value: Any) -> str:
    """JSON in ASCII."""
    return json.dumps(value).replace(json.dumps(DEEP), _NESTED)


@st.composite
def nearly(draw: st.DrawFn, whole: Any, *words: str, untouched: Sequence[str] = ()) -> Any:
    """`whole` with one to three places changed: replaced, removed, or joined by another. Nothing below a
    name of `untouched` changes, but it may be removed as a whole. `words` as for `json_values`.
    """
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value, untouched))
        if not places:
            return draw(json_values(*words))
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if how == "replace":
            holder[key] = draw(json_values(*words))
        elif how == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, draw(json_values(*words)))
        else:
            holder[draw(_TEXT)] = draw(json_values(*words))
    return value


def _places(value: Any, untouched: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    names = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in names:
        yield value, name
        if name not in untouched:
            yield from _places(value[name], untouched)
