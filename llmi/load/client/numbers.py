"""The numbers of `llmi bench client`, and their targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from llmi.load.spread import Spread
from llmi.load.targets import Target

POSTING_MS, LAG_MS, ROLLOUT_KB = 5.0, 20.0, 50.0  # targets


@dataclass
class Numbers:
    """All measurements. Times in ms unless their name says seconds; memory in KB (1,000 bytes)."""

    rollouts: int
    seconds: float
    posting: Spread = field(default_factory=Spread)
    loop_lag: Spread = field(default_factory=Spread)
    raw_idle: Spread = field(default_factory=Spread)
    raw_loaded: Spread = field(default_factory=Spread)
    requests_per_s: float = 0.0
    rollouts_per_s: float = 0.0
    tokens_per_rollout: float = 0.0
    message_bytes: int = 0
    processor_share: float = 0.0
    rollout_kb: float = 0.0
    rollout_traced_kb: float = 0.0
    left_traced_kb: float = 0.0
    left_open: int = 0
    failed: int = 0
    wall_s: float = 0.0

    @property
    def ratio_idle(self) -> float:
        """Median of posting over the median of a round trip of the same bytes on an idle loop."""
        return self.posting.p50 / self.raw_idle.p50 if self.raw_idle.p50 else 0.0

    @property
    def ratio_loaded(self) -> float:
        """The same with round trips on the loaded loop."""
        return self.posting.p50 / self.raw_loaded.p50 if self.raw_loaded.p50 else 0.0

    @property
    def targets(self) -> tuple[Target, ...]:
        return (
            Target("tag closed to request in Redis, p50", self.posting.p50, "ms", at_most=POSTING_MS),
            Target("event loop lag, p99", self.loop_lag.p99, "ms", at_most=LAG_MS),
            Target("memory per rollout beyond its tokens", self.rollout_kb, "KB", at_most=ROLLOUT_KB),
        )

    def document(self) -> dict[str, Any]:
        """For JSON."""
        ratios = {"ratio_idle": self.ratio_idle, "ratio_loaded": self.ratio_loaded}
        targets = [target.document() for target in self.targets]
        return {**asdict(self), **ratios, "targets": targets}
