"""Requests, outcomes and everything that runs behind the queue: client, broker, Celery worker, tools,
sandbox.

Imports nothing of the other packages, and only `celery_app` and `client` import Celery.
"""
