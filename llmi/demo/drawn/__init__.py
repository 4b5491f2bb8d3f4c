"""Drawn pictures with captions, for the built-in image library and for training the tiny diffusion model.

Everything is drawn with PIL from a seed; nothing is downloaded or copied.

May import nothing else of this project.
"""
