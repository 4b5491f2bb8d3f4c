"""What `llmi chaos` and `llmi bench soak` share: Redis, a simulated provider, real workers, real rollouts.

May import `llmi.load.simulated`, `llmi.demo` and the product.
"""
