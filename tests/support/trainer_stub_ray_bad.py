"""A trainer that fails in a task of Ray, and then once more while it ends."""

import atexit
import os

import ray
from trainer_stub import run_of, step


def fail() -> None:
    raise ValueError("the weights are gone")


if __name__ == "__main__":
    step(run_of())
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, configure_logging=False)
    atexit.register(lambda: 1 / 0)
    ray.get(ray.remote(num_cpus=0)(fail).remote())
