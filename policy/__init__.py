"""The model being trained: documents, grammar, data, ledger, resume, rollout, admission, training, verl on a
CPU.

May import `workers`. Uses tools only through `workers.client`; the scorer is a parameter (`policy.scoring`).
"""
