"""The claim of a run on its Redis database, and the state that a resumed run starts from.

May import `coordinator.config`.
"""
