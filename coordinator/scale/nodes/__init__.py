"""`llmi workers start` on a node: the plan of its workers, their supervisor, and its state on disk.

May import `coordinator.config`, `console`, `host`, `state` and the modules of `coordinator.scale`.
"""
