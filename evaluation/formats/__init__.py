"""Benchmark formats: reading items from files.

May import `policy.data`.
"""
