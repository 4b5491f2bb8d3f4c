"""`llmi sft`: supervised training on documents, from its configuration to its summary.

May import everything of `coordinator` but `cli` and `rehearse`.
"""
