"""`llmi train --rehearse`: two steps of a configuration on this machine's CPUs, with its model made tiny.

May import everything of `coordinator` but `cli` and `blobs`.
"""
