"""`llmi chaos`: faults injected into real rollouts, queues and workers, then an audit of every request.

May import `llmi.load.testbed`, `llmi.load.simulated` and the product.
"""
