"""`llmi bench staleness`: time and samples until the tiny policy reaches a reward, in five arms.

May import `llmi.load.simulated`, `llmi.load.overlap`, the modules of `llmi.load`, `llmi.demo` and the
product.
"""
