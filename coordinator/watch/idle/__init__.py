"""Why the trainer, or the generator, was idle: every second of it has a cause (docs/idle.md)."""
