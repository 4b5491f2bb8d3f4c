"""The model being trained: tag grammar, data, rollouts, admission, ledger, resume, training with verl.

May import `workers`. Uses tools only through `workers.client`; the scorer is a parameter (`policy.scoring`).
"""
