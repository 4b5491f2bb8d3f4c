"""The Celery application of tests about processes that keep a model: the product's, with simulated models."""

from __future__ import annotations

from workers.celery_app.app import app

app.conf.imports = ("gpu_jobs",)
