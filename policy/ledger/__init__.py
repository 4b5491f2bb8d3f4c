"""The run ledger: one entry per event of a rollout, written by many processes, merged by its readers.

May import `policy.document` and `policy.scoring`.
"""
