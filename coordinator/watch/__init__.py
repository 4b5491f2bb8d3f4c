"""Monitoring of a run: progress, status, summary, metrics exporter, report.

May import `coordinator.scale` and everything below it.
"""
