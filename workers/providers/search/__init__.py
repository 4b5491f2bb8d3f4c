"""Search providers, one per module; each defines `PROVIDER`.

May import `workers.providers.http`, `workers.images`, `workers.text` and the contracts of `workers`.
"""
