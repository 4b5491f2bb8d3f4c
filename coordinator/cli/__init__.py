"""The command line `llmi`.

May import everything below it in `coordinator`; commands of other packages come by entry points.
"""
