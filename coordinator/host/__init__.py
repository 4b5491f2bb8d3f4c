"""This machine: processes, signals, hardware, the embedded Redis, Ray.

May import `coordinator.config`.
"""
