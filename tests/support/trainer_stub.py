"""Stands in the trainer's place: does one step, then waits for ever beside a child that cut itself loose."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def step(run: Path) -> None:
    """What a step leaves: one line of metrics."""
    with Path(os.environ["VERL_FILE_LOGGER_PATH"]).open("a") as file:
        file.write(json.dumps({"step": 1, "data": {"timing_s/gen": 1.0, "timing_s/step": 4.0}}) + "\n")


def run_of() -> Path:
    return Path(os.environ["LLMI_CONFIG"]).parent


if __name__ == "__main__":
    step(run_of())
    # As an engine process may: out of our session, its parent gone.
    code = "import os, time; os.setsid(); os.fork() and os._exit(0); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code])
    (run_of() / "started").touch()
    time.sleep(600)
