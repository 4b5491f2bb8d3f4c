"""Evaluation of a model on benchmarks, and HTML pages of documents with their images and scores.

May import `rewards`, `policy` and `workers`.
"""
