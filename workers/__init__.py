"""The queue and all that runs behind it: messages, Celery app, async client, blob store, the four tools,
the jail.

Knows nothing of models being trained; nothing outside this package imports Celery.
"""
