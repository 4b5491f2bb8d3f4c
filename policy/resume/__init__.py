"""What a resumed run knows of the run before: completions, requests, and the plan to go on.

May import `policy.ledger`, `policy.document` and `policy.scoring`.
"""
