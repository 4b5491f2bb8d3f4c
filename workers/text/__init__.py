"""Reading of untrusted text in linear time: patterns, fences, control tokens, full-text match.

May import nothing of this project.
"""
