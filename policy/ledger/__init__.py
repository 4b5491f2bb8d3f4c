"""The run ledger: one line per event of a rollout, written by many processes, read by everything else.

May import `policy.document` and `policy.scoring`.
"""
