"""`llmi export` of a real checkpoint: two FSDP shards with LoRA adapters, from verl's own engine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.config.settings import check
from coordinator.export.author import with_checkpoint
from coordinator.export.export import Export, write
from evaluation.settings import AuthorSettings

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

SUPPORT = Path(__file__).parents[1] / "support"
LLMI = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the initial model, a run with a checkpoint of step 3, and what its trainer computes."""
    folder = tmp_path_factory.mktemp("saved")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {
        "VERL_USE_EXTERNAL_MODULES": "policy.cpu", "VERL_PLATFORM": "cpu", "TORCHDYNAMO_DISABLE": "1",
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, str(SUPPORT / "saved_checkpoint.py"), str(folder)]
    logs = [folder / f"log-{rank}" for rank in (0, 1)]
    ranks = [
        subprocess.Popen(
            command, stdout=log.open("wb"), stderr=subprocess.STDOUT, env=env | {"RANK": str(rank)}
        )
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [rank.wait(timeout=200) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert codes == [0, 0], "".join(log.read_text()[-2000:] for log in logs)
    run = folder / "run"
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("3")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 3, "data": {"critic/score/mean": 0.5}}) + "\n")
    train = {"model": str(folder / "model-0"), "system_prompt": False}
    check({"name": "run", "train": train, "data": {"train": ["a.parquet"]}}, "here").save_yaml(run)
    return folder


def log_probs(model: Path) -> list[float]:
    """Of the tokens that the trainer computed, with transformers alone."""
    import lora_step
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        return lora_step.log_probs(loaded).flatten().tolist()


def test_an_exported_model_computes_what_the_trainer_did(saved):
    command = [*LLMI, "export", "run", "--dir", str(saved), "--step", "best", "--merge-adapter", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = saved / "run" / "exports" / "step-3"
    assert json.loads(done.stdout) == {"run": str(saved / "run"), "step": 3, "folder": str(folder)}
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    exported, trained = log_probs(folder), json.loads((saved / "trained.json").read_text())
    assert exported == pytest.approx(trained, abs=0.02)  # its weights are bfloat16
    before = log_probs(saved / "model-0")
    assert max(abs(new - old) for new, old in zip(exported, before, strict=True)) > 0.1

    author = with_checkpoint(AuthorSettings(model="run@last"), print, saved)
    assert (author.model, author.system_prompt) == (str(folder), False)
    assert [path.name for path in folder.parent.iterdir()] == ["step-3"]


def test_adapters_stay_beside_the_initial_weights(saved):
    export = Export(saved / "run", 3, merge_adapter=False)
    write(export, export.place, print)
    assert export.place.name == "step-3-adapter"
    assert json.loads((export.place / "lora_adapter" / "adapter_config.json").read_text())["r"] == 4
    assert log_probs(export.place) == pytest.approx(log_probs(saved / "model-0"), abs=0.02)
