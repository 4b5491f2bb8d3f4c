"""`llmi bench soak`: an hour of load, with the memory of every role measured.

May import `llmi.load.testbed`, `llmi.load.simulated` and the product.
"""
