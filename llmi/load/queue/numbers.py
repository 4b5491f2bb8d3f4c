"""The numbers of `llmi bench queue`: medians of rounds, ratios, targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from llmi.load.queue.contestants import CELERY, OURS, Options
from llmi.load.queue.trial import Trial
from llmi.load.targets import Target

THROUGHPUT, LATENCY = 1.5, 1.0  # ours to plain Celery's: at least, at most
KEPT = 0.10  # change of throughput and p99 from the smallest to the largest backlog
COMMAND = 1.2  # time of a command with the largest backlog to that with the smallest, at most
# A command counts for this target if it is called as often with both backlogs, or takes as long with the
# largest: the mean of a few short calls is chance.
LEAST_CALLS, LEAST_US = 500, 100.0
RESOLUTION_US = 1.0  # of commandstats: a smaller difference is none


@dataclass(frozen=True)
class CommandTime:
    """Calls of one Redis command, and microseconds of each on average."""

    calls: int
    us_per_call: float


@dataclass(frozen=True)
class Window:
    """One round at a backlog: requests per second from it; ms from post to outcome of single requests of the
    queue beside it. `commands`: those while the backlog is consumed, and those that only single requests use.
    """

    per_s: float
    p50: float
    p99: float
    commands: Mapping[str, CommandTime]


@dataclass(frozen=True)
class Rounds:
    """The rounds of one contestant, or at one backlog, and their medians."""

    rounds: Sequence[Trial | Window]

    def median(self, field: str) -> float:
        """The median of `per_s`, `p50` or `p99`."""
        return median(getattr(one, field) for one in self.rounds)

    def medians(self) -> dict[str, float]:
        return {field: self.median(field) for field in ("per_s", "p50", "p99")}


@dataclass(frozen=True)
class BacklogNumbers:
    """`kb_per_1000`: memory of 1,000 waiting requests in Redis, in KB of 1,000 bytes."""

    waiting: int
    kb_per_1000: float
    windows: Sequence[Window]

    @property
    def rounds(self) -> Rounds:
        return Rounds(self.windows)

    def commands(self) -> dict[str, CommandTime]:
        """The calls of every command in all windows, and the median of its time per call.

        (Not the mean of all calls: when Redis has to wait for a core during a short one, that counts as the
        time of the command.)
        """
        names = sorted({name for window in self.windows for name in window.commands})
        parts = {name: [w.commands[name] for w in self.windows if name in w.commands] for name in names}
        return {
            name: CommandTime(sum(one.calls for one in each), median(one.us_per_call for one in each))
            for name, each in parts.items()
        }


def command_ratios(small: BacklogNumbers, large: BacklogNumbers) -> dict[str, float]:
    """Time per call with the large backlog to that with the small one, of the commands that count."""
    few, many = small.commands(), large.commands()
    common = sorted(few.keys() & many.keys())
    return {name: _ratio(few[name], many[name]) for name in common if _counts(few[name], many[name])}


def _counts(few: CommandTime, many: CommandTime) -> bool:
    return min(few.calls, many.calls) >= LEAST_CALLS or many.us_per_call >= LEAST_US


def _ratio(few: CommandTime, many: CommandTime) -> float:
    if abs(many.us_per_call - few.us_per_call) < RESOLUTION_US:
        return 1.0
    return many.us_per_call / max(few.us_per_call, RESOLUTION_US)


@dataclass(frozen=True)
class Numbers:
    """`skipped`: contestants that were not measured, with the reason."""

    options: Options
    contestants: Mapping[str, Rounds]
    skipped: Mapping[str, str]
    backlogs: Sequence[BacklogNumbers]
    wall_s: float

    @property
    def targets(self) -> list[Target]:
        ours, celery = self.contestants[OURS.name], self.contestants[CELERY.name]
        found = [
            Target(
                "requests per second, against plain Celery",
                ours.median("per_s") / celery.median("per_s"),
                "x",
                at_least=THROUGHPUT,
            ),
            Target(
                "post to outcome, p50, against plain Celery",
                ours.median("p50") / celery.median("p50"),
                "x",
                at_most=LATENCY,
            ),
        ]
        return found + (self._kept() if len(self.backlogs) > 1 else [])

    def _kept(self) -> list[Target]:
        """The targets that compare the largest backlog with the smallest."""
        small, large = self.backlogs[0], self.backlogs[-1]
        words = f"{large.waiting:,} waiting against {small.waiting:,}"

        def ratio(field: str) -> float:
            return large.rounds.median(field) / small.rounds.median(field)

        found = [
            Target(f"requests per second, {words}", ratio("per_s"), "x", at_least=1 - KEPT),
            Target(f"post to outcome beside, p99, {words}", ratio("p99"), "x", at_most=1 + KEPT),
        ]
        if ratios := command_ratios(small, large):
            slowest = max(ratios, key=lambda name: ratios[name])
            found.append(
                Target(f"time per call of {slowest.upper()}, {words}", ratios[slowest], "x", at_most=COMMAND)
            )
        return found

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "options": asdict(self.options),
            "contestants": {
                name: {**rounds.medians(), "rounds": [asdict(one) for one in rounds.rounds]}
                for name, rounds in self.contestants.items()
            },
            "skipped": dict(self.skipped),
            "backlogs": [_backlog_document(one) for one in self.backlogs],
            "targets": [target.document() for target in self.targets],
            "wall_s": self.wall_s,
        }


def _backlog_document(one: BacklogNumbers) -> dict[str, Any]:
    windows = [{field: getattr(w, field) for field in ("per_s", "p50", "p99")} for w in one.windows]
    commands = {name: asdict(each) for name, each in one.commands().items()}
    return {
        "waiting": one.waiting,
        "kb_per_1000": one.kb_per_1000,
        **one.rounds.medians(),
        "windows": windows,
        "commands": commands,
    }
