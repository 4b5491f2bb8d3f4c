"""`llmi bench soak`: an hour of load, with the memory of every role measured.

May import `llmi.load.chaos` and `llmi.load.simulated`.
"""
