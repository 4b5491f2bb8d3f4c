"""`llmi doctor`: what of this machine and configuration works, what does not, and what to do about it.

May import `coordinator.config`, `host`, `state` and the modules of `coordinator.check`.
"""
