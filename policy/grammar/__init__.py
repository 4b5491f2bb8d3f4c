"""Tags in the text of the model: how they are prompted for, found, read and repaired.

May import `policy.document` and `workers.text`.
"""
