"""HTML pages and pictures of documents, runs and evaluations.

May import everything of `evaluation`.
"""
