"""Ways of doing a tool: each module drives one service, model or library, and knows nothing of queues."""
