"""Prometheus metrics of every process: counters, the endpoint, the folder that processes share.

May import `workers.messages`, `workers.queues` and `workers.settings`.
"""
