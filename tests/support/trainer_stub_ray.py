"""A trainer that connects to the run's Ray and reads from where a worker imports."""

import locale
import os
import sys
from pathlib import Path

import ray
from trainer_stub import run_of, step


def surroundings() -> dict:
    return {
        "path": sys.path,
        "encoding": locale.getpreferredencoding(False).lower(),
        "backend": os.environ.get("MPLBACKEND"),
        "cwd": os.getcwd(),
    }


if __name__ == "__main__":
    step(run_of())
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, configure_logging=False)
    inside = ray.get(ray.remote(num_cpus=0)(surroundings).remote())
    assert os.environ["RAY_AUTH_TOKEN"], "the run's own"
    assert os.environ["RAY_AUTH_MODE"] == "token", "else Ray prints a sentence about it"
    assert not (Path(os.environ["HOME"]) / ".ray").exists()
    for found in (inside, surroundings()):
        assert (found["encoding"], found["backend"]) == ("utf-8", "Agg"), found
        assert not {"", os.environ["LLMI_TEST_MARK"]} & set(found["path"]), found
