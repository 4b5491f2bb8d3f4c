"""Admission: how many groups are in flight, the prompt feeder, and the pause while a provider is down.

May import `policy.ledger`, `policy.inflight` and `workers`.
"""
