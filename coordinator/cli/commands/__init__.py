"""The commands of `llmi`, one module for each group: options, a call, and the output of the result.

May import every other part of `coordinator`; slow modules only inside functions, so that `llmi` starts fast.
"""
