"""Registers one Celery task for every job. Imported by worker processes only."""

from __future__ import annotations

from workers.celery_app.app import app
from workers.celery_app.execution import register
from workers.jobs import load_jobs

for kind in load_jobs():
    register(app, kind)
