"""Rewards: rules, judge axes, judges as queue jobs, formulas, and which samples are masked.

May import `policy` and `workers`. An infrastructure failure is never a number; it masks the sample.
"""
