"""A training run: services in order, the trainer, the loop that watches both.

May import everything of `coordinator` but `cli` and `blobs`.
"""
