"""Prometheus metrics of a process, its HTTP endpoint, and the folder that the processes of a pool share.

May import the contracts of `workers`.
"""
