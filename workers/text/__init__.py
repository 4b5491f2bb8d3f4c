"""Patterns and scanners that read untrusted text in linear time.

May import nothing of this project.
"""
