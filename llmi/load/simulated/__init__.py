"""A simulated model and simulated workers, so that the queue alone is measured.

May import the product.
"""
