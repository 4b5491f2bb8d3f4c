"""GRPO on verl: trainer, prompt sampler, checkpoints, Hydra options.

May import everything of `policy`.
"""
