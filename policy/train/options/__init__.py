"""Options of verl from the settings of a run: parts of the translation, `train.verl`, and refusals.

May import `policy.settings` and `policy.train.gradient`.
"""
