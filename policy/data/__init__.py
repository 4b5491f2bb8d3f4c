"""Datasets: reading rows, checking images, and the dataset class that verl loads.

May import `policy.grammar`, `policy.tools` and `policy.document`.
"""
