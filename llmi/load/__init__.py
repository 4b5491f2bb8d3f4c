"""Benchmarks and fault injection on this machine: each starts what it needs, ends, and prints its targets.

May import everything.
"""
