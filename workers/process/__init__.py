"""A worker process and its life: start, readiness, draining, parent-death signal, interpreter settings.

May import the contracts of `workers`, `broker` and `metrics`.
"""
