"""Evaluation of the test files while training: when, with which documents, and with what result.

May import verl, `policy.ledger` and `policy.settings`; `result` and `schedule` import no library.
"""
