"""Reading untrusted text in linear time: patterns, code fences, control tokens, full-text search.

May import nothing of this project.
"""
