"""Consuming from Redis: kombu channel, QoS, message validation, event-loop wake-up.

May import `workers.broker`, `workers.celery_app.timer_step` and the contracts of `workers`.
"""
