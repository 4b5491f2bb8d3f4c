"""Drawn pictures with captions: what the built-in image library is made of, and what the tiny diffusion model
learns.

Everything is drawn with PIL from a seed; nothing is downloaded and nothing is anybody's work but this
project's.
"""
