"""Tags in the text of the model: the system prompt, finding tags in a stream, parsing and repairing them.

May import `policy.document`, `policy.tools`, `workers.messages` and `workers.text`.
"""
