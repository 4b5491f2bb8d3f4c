"""What the garbage collector walks over in a process that keeps a thousand rollouts on one event loop.

A full collection stops the loop: 0.3 s where torch and verl are imported, whose half a million objects never
go away. Rollouts end by reference counting; only little garbage has cycles.
"""

from __future__ import annotations

import gc

YOUNG = 5000  # objects made, and not gone, between two collections of the youngest; Python's own is 700


def freeze_gc() -> None:
    """Leave out of every later collection what exists, and collect less often. Once, when all is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
