"""Generated prompts and documents about the topics of the drawn pictures.

May import `policy` and `llmi.demo.drawn`.
"""
