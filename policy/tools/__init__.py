"""The tools as the model calls them: one module per tool, found by `registry`.

May import `workers` (messages, queues, jobs) and nothing else of `policy`.
"""
