"""The command line `llmi`.

May import everything.
"""
