"""`llmi sft` for real: ten steps of verl's SFT trainer on a CPU, a resume after a kill, and the export."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from cpu_train import CPU_TRAIN

from coordinator.export.author import with_checkpoint
from evaluation.settings import AuthorSettings
from policy.sft.examples import Example, load, write
from policy.sft.tokens import encode

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

LLMI = [sys.executable, "-c", "from coordinator.cli.main import main; main()"]
ANIMALS = ("cat", "dog", "owl", "fox", "elk", "hen", "cow", "bee", "ant", "eel")
STEPS, PER_EPOCH = 10, 5  # 20 examples in batches of 4


def text(animal: str) -> str:
    tag = f"{{'source': 'search', 'description': 'a {animal}', 'params': {{'query': '{animal}'}}}}"
    return f"This is the {animal}.\n<imgen>{tag}</imgen>\nThe {animal} sleeps."


EXAMPLES = [
    Example(({"role": "user", "content": f"Write of the {size} {animal}."},), text(animal))
    for animal in ANIMALS
    for size in ("small", "large")
]


def llmi(*arguments: object) -> dict:
    done = subprocess.run(
        [*LLMI, *map(str, arguments), "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def losses(run) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["data"]["train/loss"] for row in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny random model, 20 conversations, a configuration, and the run `warm` with it."""
    import torch

    from llmi.demo.policy.architecture import make_model, save
    from llmi.demo.policy.recipe import Recipe
    from llmi.demo.policy.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("sft")
    tokenizer = train_tokenizer([one.text for one in EXAMPLES], 400)
    torch.manual_seed(0)
    model = make_model("text", Recipe(documents=1, steps=1, hidden=64, layers=2), tokenizer)
    save("text", model, tokenizer, folder / "model")
    write(folder / "talks.parquet", EXAMPLES)
    config = {
        "train": {
            **CPU_TRAIN, "model": str(folder / "model"), "system_prompt": False, "warmup_steps": 0,
            "schedule": "cosine", "keep_checkpoints": STEPS,
        },
        "sft": {"steps": STEPS, "batch_size": 4, "lr": 1e-2, "save_every": 1},
        "data": {"train": [str(folder / "talks.parquet")]},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    command = ("sft", folder / "config.yaml", "--from", folder / "talks.parquet", "--name", "warm")
    return llmi(*command, "--dir", folder)


def test_the_loss_falls_and_the_summary_says_so(folder, trained):
    assert (trained["documents"], trained["steps"], trained["epochs"]) == (20, STEPS, 2)
    assert trained["checkpoint"] == STEPS
    assert trained["loss_last"] < 0.7 * trained["loss_first"]
    assert sorted(losses(folder / "warm")) == list(range(1, STEPS + 1))
    assert json.loads((folder / "warm" / "summary.json").read_text()) == trained
    assert load(folder / "warm" / "examples.parquet") == EXAMPLES


def test_the_export_loads_and_has_learnt(folder, trained):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def loss(model) -> float:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(model)
        total = count = 0.0
        for example in EXAMPLES:
            tokens = encode(example, tokenizer, {})
            ids = torch.tensor([tokens.prompt + tokens.answer])
            labels = ids.clone()
            labels[0, : len(tokens.prompt)] = -100
            with torch.no_grad():
                total += loaded(input_ids=ids, labels=labels).loss.item() * len(tokens.answer)
            count += len(tokens.answer)
        return total / count

    author = with_checkpoint(AuthorSettings(model="warm@last"), print, folder)
    assert (author.model, author.system_prompt) == (str(folder / "warm" / "exports" / f"step-{STEPS}"), False)
    by_step = losses(folder / "warm")
    assert loss(folder / "model") == pytest.approx(by_step[1], rel=0.1)
    assert loss(author.model) < by_step[STEPS] * 1.1


@pytest.mark.parametrize("step", [PER_EPOCH, PER_EPOCH + 2], ids=["end of an epoch", "within an epoch"])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not(folder, trained, step):
    """What a kill two steps after the last checkpoint leaves."""
    name = f"killed-{step}"
    run = folder / name
    shutil.copytree(folder / "warm", run)
    shutil.rmtree(run / "ledger")
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(run / "checkpoints" / f"global_step_{later}")
    (run / "summary.json").unlink()
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    whole = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(whole[: step + 2]) + whole[step + 2][:20])
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"name": name}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    again = llmi("sft", folder / "config.yaml", "--name", name, "--resume", "--dir", folder)
    assert losses(run) == pytest.approx(losses(folder / "warm"), rel=1e-3)
    assert again["loss_last"] == pytest.approx(trained["loss_last"], rel=1e-3)
