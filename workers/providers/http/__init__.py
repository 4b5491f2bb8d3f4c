"""HTTP to outside services: sessions, keys, proxies, address checks, error answers.

May import `workers.errors`, `workers.settings` and `workers.metrics`.
"""
