"""A machine that joins the queues without a run: its plan, its supervisor and its state on disk.

May import `coordinator.config`, `host`, `state` and the modules of `coordinator.scale`.
"""
