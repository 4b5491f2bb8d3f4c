"""One of two processes that train a tiny Qwen3 with adapters for a step and save verl's sharded checkpoint.

Usage: `saved_checkpoint.py FOLDER`, with the environment of `torch.distributed`. Rank 0 writes the
log-probabilities of fixed tokens to `FOLDER/trained.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from lora_step import log_probs, make_engine, write_model

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    model = folder / f"model-{rank}"
    write_model(model)
    engine = make_engine(model, merge=True)
    with engine.train_mode():
        (-log_probs(engine.module).mean()).backward()
        engine.optimizer_step()
    with engine.eval_mode(), torch.no_grad():
        trained = log_probs(engine.module).flatten().tolist()
    engine.save_checkpoint(str(folder / "run" / "checkpoints" / "global_step_3" / "actor"))
    if rank == "0":
        (folder / "trained.json").write_text(json.dumps(trained))
