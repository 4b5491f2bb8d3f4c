"""The system under load of `llmi chaos` and `llmi bench soak`: Redis, simulated provider, workers, rollouts.

May import `llmi.load.simulated`, `llmi.demo` and the product.
"""
