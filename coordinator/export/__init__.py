"""Models out of the checkpoints of a run: `llmi export`, and `RUN@STEP` where a model is named.

May import `config`, `console`, `host` and `state` of `coordinator`.
"""
