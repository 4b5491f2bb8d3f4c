"""The configuration of a run: fields, files, overrides, error messages.

May import the settings of every package.
"""
