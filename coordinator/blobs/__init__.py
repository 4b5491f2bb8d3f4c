"""`llmi blobs`: remove blobs that nothing references any more.

May import everything of `coordinator` but `cli` and `run`.
"""
