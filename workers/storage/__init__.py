"""The content-addressed blob store, atomic writes, the cache folder.

May import `workers.errors` and `workers.messages`.
"""
