"""Checks before a run: `llmi doctor`, the preflight and the dry run.

May import `coordinator.config`, `console`, `host` and `state`.
"""
