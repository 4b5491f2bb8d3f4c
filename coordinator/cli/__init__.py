"""The command line `llmi`.

May import every other part of `coordinator`. Other packages add commands by entry points.
"""
