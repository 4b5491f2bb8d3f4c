"""Content-addressed blobs in a folder or an object store, atomic writes, the cache folder.

May import `workers.errors` and `workers.messages`.
"""
