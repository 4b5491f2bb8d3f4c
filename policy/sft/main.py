"""`python -m policy.sft.main`: a rank of verl's SFT trainer (0.9.1), on a GPU or a CPU.

As verl's own `run_sft`, which opens a group that torch refuses on a CPU (`policy.cpu.gloo`). The environment
names the rank, as for `torch.distributed`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hydra
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils.device import auto_set_device
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

from policy.ledger.run_lock import shared
from policy.sft.verl_options import CONFIG_NAME


@hydra.main(config_path="pkg://verl.trainer.config", config_name=CONFIG_NAME, version_base=None)
def main(config: Any) -> None:
    """Train with this configuration."""
    auto_set_device(config)
    with shared(Path(config.trainer.default_local_dir).parent):  # nobody resumes the run while it trains
        if os.environ.get("VERL_PLATFORM") == "cpu":
            import policy.cpu.gloo  # noqa: F401 - opens the group, and registers the engine
        else:
            initialize_global_process_group()
        SFTTrainer(config).fit()
        destroy_global_process_group()


if __name__ == "__main__":
    main()
