"""Rewards: rules, judges (as queue jobs), the formulas that combine them, and which samples may vote.

A failure of infrastructure is never a number here: it masks the sample.
"""
