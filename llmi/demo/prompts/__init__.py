"""Generated prompts and documents about the topics of the drawn pictures.

May import `llmi.tools`.
"""
