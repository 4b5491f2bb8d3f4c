"""Resuming a run: the completion store, the resume plan and state, and the client that reattaches.

May import `policy.ledger`, `policy.document` and `policy.scoring`.
"""
