"""A measured number with its limits, for every benchmark.

Invariant: a target without a limit is met by any number; `document` has only the limits that are set.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """`value` and its limits in `unit` (empty: a ratio); None: no limit."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the value is within the limits, limits included."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    @property
    def limits(self) -> str:
        """The limits in words, as in "at most 5 ms"."""
        both = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(
            f"{words} {limit:g} {self.unit}".rstrip() for words, limit in both if limit is not None
        )

    def document(self) -> dict[str, Any]:
        """For JSON, which has no infinity: "inf"."""
        found = {key: value for key, value in asdict(self).items() if value is not None}
        return found | {"value": self.value if math.isfinite(self.value) else "inf", "met": self.met}
