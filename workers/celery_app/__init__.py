"""The Celery worker: application, consuming, leases, heartbeat, execution of a message, result backend.

May import the contracts of `workers`, `broker`, `metrics`, `process` and `storage`.
"""
