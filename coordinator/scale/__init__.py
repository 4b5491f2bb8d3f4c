"""Worker pools: how many workers, where, started, drained and replaced.

May import `coordinator.config`, `host` and `state`.
"""
