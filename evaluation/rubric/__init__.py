"""Grading a document by the criteria of its benchmark item.

May import `evaluation.settings`, `evaluation.payloads` and `rewards.judges`.
"""
