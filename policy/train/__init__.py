"""GRPO on verl: trainers, group sampler, checkpoints, Hydra options.

May import everything of `policy`.
"""
