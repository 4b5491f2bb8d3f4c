"""The model being trained: tag grammar, documents, prompts and data, verl agent loop and CPU platform, the
tiny policy.

Talks to tools only through `workers.client.client`; scoring is handed in (see `policy.scoring`).
"""
