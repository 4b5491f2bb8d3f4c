"""The judge of benchmark criteria: it grades a document by one criterion of its item.

May import `evaluation.{payloads,settings}`, `rewards` and `workers`.
"""
