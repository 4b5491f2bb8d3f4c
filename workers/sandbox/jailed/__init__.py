"""The jailed side: the zygote, and the children it forks to run code or decode images.

May import `workers.sandbox.layers`, `workers.sandbox.charts` and `workers.sandbox.protocol`.
"""
