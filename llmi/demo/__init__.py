"""The demo: tiny models and their training, drawn pictures, generated prompts, and the runs on them.

May import everything but `llmi.load`.
"""
