"""Authors: models that write documents outside of training, local or at an OpenAI-compatible endpoint.

May import `evaluation.settings`, `rewards`, `policy` and `workers`.
"""
