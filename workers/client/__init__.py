"""The async client of the queue: post, await, cancel, repost lost messages, reattach after a restart.

May import `workers.broker`, `workers.metrics` and the contracts of `workers`.
"""
