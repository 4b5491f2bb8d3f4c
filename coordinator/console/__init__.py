"""The terminal: width, tables, progress of long work.

May import nothing else of this project.
"""
