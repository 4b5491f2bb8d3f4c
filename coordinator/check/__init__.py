"""Checks before a run: `llmi doctor`, the preflight and the dry run.

May import `coordinator.config`, `host` and `state`.
"""
