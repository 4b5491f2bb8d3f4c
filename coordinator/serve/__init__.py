"""GPU servers: vLLM judges and image servers.

May import `coordinator.config` and `coordinator.host`.
"""
