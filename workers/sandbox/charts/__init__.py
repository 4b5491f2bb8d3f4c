"""How charts look: style, fonts, and what a figure has drawn.

May import nothing else of this project.
"""
