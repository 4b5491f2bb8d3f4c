"""Image search: SerpAPI and a local library of captioned images.

May import `workers.providers.http` and the contracts of `workers`.
"""
