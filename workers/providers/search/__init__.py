"""Search providers, one per module; each defines `PROVIDER`. `docs/extending.md` says how to add one.

May import `workers.providers.http`, `workers.images`, `workers.text` and the contracts of `workers`.
"""
