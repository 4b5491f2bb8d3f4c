"""`python -m policy.train.main_ppo`: verl's `python -m verl.trainer.main_ppo` (0.9.1) with the trainers of
`policy.train.trainer` registered.

verl looks up a trainer by name in its task runner, a process that has not imported anything of this project.
Passing another task runner to `run_ppo` is verl's own way to change that. On a CPU the processes of the run
are forked from one that has imported everything they need (`policy.cpu.zygote`).
"""

from __future__ import annotations

import os
from typing import Any

import hydra
import ray
from omegaconf import open_dict
from verl.trainer import main_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from policy.settings import RAY_WORKER_ENV
from policy.train.verl_private import task_runner_class

_py_executable = ""  # the command with which Ray starts workers; empty: Ray's default
_TaskRunner: Any = task_runner_class()


class RegisteringTaskRunner(_TaskRunner):
    """verl's task runner with the trainers of `policy.train.trainer`."""

    def run(self, config: Any) -> None:
        import policy.train.trainer  # noqa: F401 - registers them

        super().run(config)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config: Any) -> None:
    """Run verl's trainer with this configuration."""
    auto_set_device(config)
    if _py_executable:
        with open_dict(config.ray_kwargs.ray_init):
            config.ray_kwargs.ray_init.runtime_env.py_executable = _py_executable
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    main_ppo.run_ppo(config, task_runner_class=ray.remote(RegisteringTaskRunner))


if __name__ == "__main__":
    if os.environ.get("VERL_PLATFORM") == "cpu" and all(name in os.environ for name in RAY_WORKER_ENV):
        from policy.cpu import zygote

        _py_executable = zygote.start()
        for name in RAY_WORKER_ENV:
            del os.environ[name]  # this process is not a Ray worker
    main()
