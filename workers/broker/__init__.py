"""State of the queue in Redis: keys, outcomes, request status, worker registry, breakers, dead letters.

May import the contracts of `workers`. Never imports Celery or kombu.
"""
