"""Benchmarks and fault injection on this machine. Each starts and stops what it needs, and prints its
targets.

May import everything.
"""
