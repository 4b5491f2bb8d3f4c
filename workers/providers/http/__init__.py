"""HTTP to outside services: sessions, keys, proxies, address checks, the reading of refusals.

May import `workers.errors`, `workers.settings` and `workers.metrics`.
"""
