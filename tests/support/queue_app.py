"""The Celery application of the queue's own tests: the product's, but with jobs that do as they are told."""

from __future__ import annotations

from workers.celery_app.app import app

app.conf.imports = ("queue_jobs",)
