"""How a worker consumes from Redis: kombu channel, prefetch, message validation, event-loop wake-up.

May import `workers.broker` and the contracts of `workers`.
"""
