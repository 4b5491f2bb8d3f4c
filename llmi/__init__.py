"""The public Python interface, and two packages above the product: `llmi.demo` and `llmi.load`.

The product reaches them by entry points only.
"""
