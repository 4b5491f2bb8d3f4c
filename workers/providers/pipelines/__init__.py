"""Diffusers pipelines: what a pipeline takes, and a processor that needs no torchvision.

May import the contracts of `workers`; torch and diffusers only inside functions.
"""
