"""The Celery application of workers whose jobs do nothing (`WorkerProcess(app=...)`)."""

from __future__ import annotations

from llmi.load.queue.noop import BESIDE, QUEUE, register_jobs
from workers.celery_app.app import app
from workers.celery_app.execution import register

app.conf.imports = ()
register_jobs()
for _kind in (QUEUE, BESIDE):
    register(app, _kind)
