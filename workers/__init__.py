"""Requests, outcomes and the workers of the queue: client, broker, Celery worker, tools, providers, jail.

May import no other package of this project; only `celery_app` and `client` import Celery and kombu.

Its subpackages call the modules of this folder "the contracts of `workers`": errors, messages, queues, jobs,
settings, the connection to Redis.
"""
