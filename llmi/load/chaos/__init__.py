"""`llmi chaos`: faults injected into real rollouts, queues and workers, then an audit of every request.

May import `llmi.load.testbed` and `llmi.load.simulated`.
"""
