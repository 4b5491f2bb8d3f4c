"""Find groups without a signal: all their samples have the same reward, so that every advantage is zero.

Invariant: the rewards of a group are read once, when it has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policy.data.prompt_results import all_same


class SignalFilter:
    """`rewards`: reads the rewards of groups, by id. `least`: samples without which a group has another
    defect. `most`: groups without a signal that a step may drop; None: all are kept.
    """

    def __init__(
        self, rewards: Callable[[set[str]], Mapping[str, list[float]]], least: int, most: int | None
    ):
        self._rewards = rewards
        self._least = least
        self.most = most
        self._flat: dict[str, bool] = {}

    def without_signal(self, finished: set[str]) -> set[str]:
        """Those of the finished groups that have none."""
        if self.most is None:
            return set()
        self._flat = {uid: flat for uid, flat in self._flat.items() if uid in finished}
        if new := finished - self._flat.keys():
            found = self._rewards(new)
            self._flat |= {uid: self._is_flat(found.get(uid, [])) for uid in new}
        return {uid for uid, flat in self._flat.items() if flat}

    def _is_flat(self, rewards: list[float]) -> bool:
        return len(rewards) >= self._least and all_same(rewards)
