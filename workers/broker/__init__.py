"""State in Redis: outcomes, queue depths, circuit breakers, the worker registry, quarantined messages.

May import the contracts of `workers`. Never imports Celery or kombu.
"""
