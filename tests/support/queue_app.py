"""The Celery application of the queue tests: that of the product with scripted jobs.

They are on existing queues: `code` (prefork), `search` and `judge_text` (threads).
"""

from __future__ import annotations

from queue_jobs import Order, run_order

from workers.celery_app.app import app
from workers.celery_app.execution import register
from workers.jobs import job

app.conf.imports = ()
for kind in ("code", "search", "judge_text"):
    job(kind, Order)(run_order)
    register(app, kind)
