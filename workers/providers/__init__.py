"""Providers: each module of `search/` and `image/` calls one service, model or library; none uses a queue.

May import the contracts of `workers`, `workers.images`, `workers.metrics` and `workers.text`.
"""
