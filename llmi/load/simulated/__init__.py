"""Rollouts with a simulated model, and simulated workers and services.

May import `llmi.demo` and the product.
"""
