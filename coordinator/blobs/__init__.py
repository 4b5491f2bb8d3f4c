"""Removing blobs that nothing references any more.

May import `coordinator.config` and `coordinator.watch`.
"""
