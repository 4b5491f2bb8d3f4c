"""Image generation and editing: diffusers pipelines and remote image services.

May import `workers.providers.http` and the contracts of `workers`.
"""
