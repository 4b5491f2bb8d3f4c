"""Processes: a worker's start, readiness and draining, parent-death signal, environment, log rotation.

May import the contracts of `workers`, `broker`, `metrics` and `providers.registry`. Never imports Celery.
"""
