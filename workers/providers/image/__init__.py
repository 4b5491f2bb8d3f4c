"""Providers of diffusion and edit, one per module; each defines `PROVIDER` (see `docs/extending.md`).

May import `workers.providers.http`, `workers.providers.pipelines`, `workers.images` and the contracts.
"""
