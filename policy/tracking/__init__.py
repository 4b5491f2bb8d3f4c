"""Trackers such as W&B: what each needs, the thread that sends to it, and pictures of documents.

May import `policy.document`, `policy.ledger`, `policy.settings` and `workers`; nothing here imports verl.
"""
