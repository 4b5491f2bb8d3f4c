"""`llmi bench queue`: the queues against other task queues, and with a long backlog.

May import `llmi.load.testbed`, the modules of `llmi.load` and the product. `scripts/` is no package: each of
its files runs in a process of its own, some in other virtual environments without this program.
"""
