"""The commands of `llmi`, one module for each group: options, a call, and the output of the result.

May import `coordinator.console` at the top; everything else inside the commands, so that `llmi` starts fast.
"""
