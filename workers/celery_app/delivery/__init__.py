"""How a worker gets requests: it claims them, passes them to Celery and renews their leases.

May import `workers.broker` and the modules of `workers.celery_app` but `app`, `tasks` and `execution`.
"""
