"""HTML pages of documents, runs and evaluations, and the reward curve.

May import every other part of `evaluation`.
"""
