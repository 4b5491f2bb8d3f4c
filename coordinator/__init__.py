"""Runs: configuration, services, the verl launch, live status, summaries, and the `llmi` command.

The only package that starts and stops processes of other programs (Redis, Ray, workers, the trainer).
"""
