"""Tiny diffusion pipelines in the layout of real ones, trained here on drawn pictures.

May import `llmi.demo.drawn`, `llmi.demo.cached_folder` and `workers`.
"""
