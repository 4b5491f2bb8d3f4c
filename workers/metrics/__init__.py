"""Prometheus metrics: the metrics of each process, its endpoint, the folder that a pool shares.

May import the contracts of `workers`.
"""
