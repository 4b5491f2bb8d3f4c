"""Consuming from Redis: kombu channel, QoS, message validation, event-loop wake-up.

May import `workers.broker`, the modules of `workers.celery_app` and the contracts of `workers`.
"""
