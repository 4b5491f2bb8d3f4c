"""Authors, which write documents outside of training: a local model, or an OpenAI-compatible endpoint.

May import `evaluation.settings`, `rewards`, `policy` and `workers`.
"""
