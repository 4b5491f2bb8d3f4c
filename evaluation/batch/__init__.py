"""Batch evaluation: submission, items as queue jobs, results and their summary.

May import every other part of `evaluation` but `evaluation.pages`.
"""
