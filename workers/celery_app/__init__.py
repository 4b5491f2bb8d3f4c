"""The Celery worker: application, leases, heartbeat, result backend, execution of a job.

May import everything of `workers` but `client`, `process`, `providers` and `tools`.
"""
