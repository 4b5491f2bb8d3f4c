"""Who owns the Redis database, and what a resumed run starts from.

May import `coordinator.config`.
"""
