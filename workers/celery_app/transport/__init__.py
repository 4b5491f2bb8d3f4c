"""Consuming from Redis: kombu channel, QoS, message validation, event-loop wake-up.

May import `workers.broker` and the contracts of `workers`.
"""
