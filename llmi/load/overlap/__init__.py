"""`llmi bench overlap`: one training run with slow tools, in variants that wait differently.

May import `llmi.load.simulated`, the modules of `llmi.load`, `llmi.demo` and the product.
"""
