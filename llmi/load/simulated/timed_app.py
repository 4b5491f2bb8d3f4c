"""The Celery application of workers with drawn service times (`WorkerProcess(app=...)`).

It is the queue's own, with `llmi.load.simulated.timed_jobs` in place of the real jobs.
"""

from __future__ import annotations

from workers.celery_app.app import app

app.conf.imports = ("llmi.load.simulated.timed_jobs",)
