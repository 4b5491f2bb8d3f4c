"""`llmi bench overlap`: one training run with slow tools, in several ways of waiting.

May import everything but the other benchmarks.
"""
