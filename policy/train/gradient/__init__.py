"""The gradient of a step: advantage, losses and their metrics for verl, and refusals of wrong options.

May import verl, and nothing else of `policy`.
"""
