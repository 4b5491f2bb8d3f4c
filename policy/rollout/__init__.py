"""A rollout: generate in segments, post tool requests, await their outcomes, ask for the reward.

May import everything of `policy` but `train`.
"""
