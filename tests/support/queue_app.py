"""The Celery application of the queue tests: that of the product with scripted jobs."""

from __future__ import annotations

from workers.celery_app.app import app

app.conf.imports = ("queue_jobs",)
