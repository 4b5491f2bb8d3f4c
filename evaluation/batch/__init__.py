"""A batch evaluation: its items as queue jobs, their results, and the scores.

May import `evaluation.authors`, `evaluation.formats` and `evaluation.rubric`.
"""
