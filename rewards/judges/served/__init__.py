"""Judge models behind an endpoint: one request and its answer, scores from log-probabilities, and reasons.

May import `rewards.judges.{fence,prompts}`, `rewards.{settings,verdicts}` and `workers`.
"""
