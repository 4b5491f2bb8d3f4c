"""Tiny diffusion pipelines in the layout of real ones, trained here on drawn pictures.

May import `llmi.demo.drawn` and `workers`.
"""
