"""An option of a configuration that a rehearsal leaves out, as it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Unrehearsed:
    """An option of the configuration that is not rehearsed. `value`: the configured one."""

    option: str
    value: object
    why: str

    def __str__(self) -> str:
        shown = "" if self.value == "" or isinstance(self.value, Mapping | list) else f"={self.value}"
        return f"{self.option}{shown} ({self.why})"

    def document(self) -> dict[str, object]:
        """As a plain value."""
        return {"option": self.option, "value": self.value, "why": self.why}
