"""Who writes the documents of an evaluation: a local model or an OpenAI-compatible endpoint.

May import `evaluation.settings`, `policy` and `rewards`.
"""
