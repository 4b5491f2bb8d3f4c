"""Runs: configuration, services, the verl launch, live status, summaries, and the `llmi` command.

May import `evaluation`, `rewards`, `policy` and `workers`. The only package of the product that starts and
stops processes of other programs (Redis, Ray, workers, the trainer).
"""
