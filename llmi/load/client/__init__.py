"""`llmi bench client`: what the producer's event loop costs.

May import `llmi.load.simulated` and the product.
"""
