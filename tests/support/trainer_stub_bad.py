"""A trainer that does one step and fails."""

from trainer_stub import run_of, step

if __name__ == "__main__":
    step(run_of())
    raise RuntimeError("the weights are gone")
