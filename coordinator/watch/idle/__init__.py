"""Idle time of the trainer and the generator, each second with its cause (docs/idle.md).

May import `policy`, `rewards` and `workers`, and nothing else of `coordinator`.
"""
