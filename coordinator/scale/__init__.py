"""Worker pools: how many workers run and where; starting, draining and replacing them.

May import `coordinator.config`, `console`, `host` and `state`.
"""
