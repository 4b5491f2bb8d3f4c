"""The Celery application of workers whose jobs take as long as drawn (`WorkerProcess(app=...)`): the queue's
own, with `coordinator.bench.timed_jobs` in place of the real jobs.
"""

from __future__ import annotations

from workers.app import app

app.conf.imports = ("coordinator.bench.timed_jobs",)
