"""`llmi bench client`: the load of a thousand rollouts on the event loop that posts their requests.

May import `llmi.load.simulated`, the modules of `llmi.load` and the product.
"""
