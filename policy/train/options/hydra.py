"""Write values in Hydra's override grammar."""

from __future__ import annotations

from collections.abc import Mapping


def quote(value: object) -> str:
    """A value in the form in which it follows `name=`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(quote(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = ",".join(f"{key}:{quote(item)}" for key, item in value.items())
        return f"{{{pairs}}}"
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
