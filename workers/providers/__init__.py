"""Providers: each module of `search/` and `image/` drives one service, model or library and knows no queue.

May import the contracts of `workers`, `workers.images` and `workers.text`.
"""
