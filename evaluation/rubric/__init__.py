"""Judge a document by the criteria of its benchmark item.

May import `evaluation.{payloads,settings}`, `rewards` and `workers`.
"""
