"""Supervised training on documents: which documents, their tokens, and verl's SFT trainer.

May import everything else of `policy`. Only `main` imports verl, and only `main` and `dataset` torch.
"""
