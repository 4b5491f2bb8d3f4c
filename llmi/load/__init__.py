"""Benchmarks that run on this machine alone: each starts what it needs, ends in a bounded time, and prints
what it measured beside what is asked for."""
