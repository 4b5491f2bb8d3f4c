"""Find groups without a signal: all their samples have the same reward, so that every advantage is zero.

Invariant: with the filter the rewards of a group are read once, when it has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policy.data.prompt_results import all_same


class SignalFilter:
    """`read`: reads the rewards of groups, by id. `least`: samples without which a group has another
    defect. `most`: groups without a signal that a step may drop; None: all are kept.
    """

    def __init__(self, read: Callable[[set[str]], Mapping[str, list[float]]], least: int, most: int | None):
        self._read = read
        self._least = least
        self.most = most
        self._found: dict[str, list[float]] = {}  # of finished groups

    def without_signal(self, finished: set[str]) -> set[str]:
        """Those of the finished groups that have none."""
        if self.most is None:
            return set()
        found = self.rewards(finished)
        self._found = {uid: found.get(uid, []) for uid in finished}
        return {uid for uid, rewards in self._found.items() if self._is_flat(rewards)}

    def rewards(self, uids: set[str]) -> dict[str, list[float]]:
        """The rewards of groups; those that the filter has not read are read now."""
        known = {uid: self._found[uid] for uid in uids & self._found.keys()}
        missing = uids - known.keys()
        return known | dict(self._read(missing)) if missing else known

    def _is_flat(self, rewards: list[float]) -> bool:
        return len(rewards) >= self._least and all_same(rewards)
