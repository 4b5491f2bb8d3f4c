"""Charts: import the libraries, fallback fonts, drawing a figure, and collecting the figures of a job.

May import nothing else of this project.
"""
