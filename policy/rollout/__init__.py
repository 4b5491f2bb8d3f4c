"""A rollout: generate in segments, post tool requests, await their outcomes, and get the score.

May import everything of `policy` but `train`.
"""
