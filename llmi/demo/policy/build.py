"""Trains the tiny policy once, and finds it in the cache.

Invariants: a folder in the cache is complete or absent (it is renamed into place); building leaves the
caller's random state and thread count unchanged; on one machine the same kind, seed and recipe give the same
model to the last bit. If a time limit ends the training early, the folder's name says so (`cut_short`), and
the model is trained again next time.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmi.demo.policy.recipe import RECIPES, Kind, Recipe, cache_key

logger = logging.getLogger(__name__)

Progress = Callable[[float, str], None]
_WARM_UP = 50  # steps until the learning rate is reached
_PREPARED = 0.1  # share of the progress that preparing the lessons takes
_CUT = "-cut-short"


def policy_folder(kind: Kind, cache: Path, *, seed: int, recipe: Recipe | None = None) -> Path:
    """The folder of the tiny policy of this recipe; a cut-short one only while there is no other."""
    folder = cache / f"tiny-{kind}-{cache_key(kind, recipe or RECIPES[kind], seed)}"
    cut = folder.with_name(folder.name + _CUT)
    return cut if cut.exists() and not folder.exists() else folder


def build_policy(
    kind: Kind,
    cache: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """Return the folder of the tiny policy; train it first if `cache` does not hold it.

    `progress` gets the share done, from 0 to 1, and the current step.
    """
    recipe = recipe or RECIPES[kind]
    folder = cache / f"tiny-{kind}-{cache_key(kind, recipe, seed)}"
    report = progress or (lambda share, text: None)
    if (folder / "config.json").exists():
        report(1.0, f"tiny {kind} policy found in the cache")
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache))
    try:
        if not _build(kind, unfinished, seed, report, recipe):
            folder = folder.with_name(folder.name + _CUT)
            shutil.rmtree(folder, ignore_errors=True)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    report(1.0, f"tiny {kind} policy ready")
    return folder


def cut_short(folder: Path) -> bool:
    """Whether the time limit ended the training of the policy in `folder`."""
    return folder.name.endswith(_CUT)


def _build(kind: Kind, folder: Path, seed: int, report: Progress, recipe: Recipe) -> bool:
    """Build into `folder`. Returns whether the time limit had no effect on the training."""
    report(0.0, "loading PyTorch")
    import torch

    from llmi.demo.policy.architecture import make_model, save
    from llmi.demo.policy.lessons import make_lessons, pairs
    from llmi.demo.policy.tokenizer import train_tokenizer

    report(0.0, f"writing {recipe.documents:,} documents")
    samples = pairs(kind, recipe, seed)
    report(0.0, "training the tokenizer")
    tokenizer = train_tokenizer((f"{prompt.text}\n{answer}" for prompt, answer in samples), recipe.vocabulary)
    report(0.0, "tokenizing the documents")
    lessons = make_lessons(
        samples, tokenizer, lambda share: report(_PREPARED * share, "preparing the input images")
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = make_model(kind, recipe, tokenizer)
            complete = _train(model, tokenizer, lessons, recipe, seed, report)
    finally:
        torch.set_num_threads(threads)
    save(kind, model, tokenizer, folder)
    return complete


def _train(
    model: Any, tokenizer: Any, lessons: list[Any], recipe: Recipe, seed: int, report: Progress
) -> bool:
    """Train for `recipe.steps`, or as many steps as `recipe.limit_s` seconds allow (see `share_done`).

    Returns whether the time limit had no effect.
    """
    import torch

    from llmi.demo.policy.lessons import batches, tensors

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, fused=True)
    usual = recipe.batch * sum(len(lesson.answer) for lesson in lessons) / len(lessons)  # tokens in a batch
    model.train()
    started, hurried = time.monotonic(), False
    for step, batch in enumerate(batches(lessons, recipe.batch, seed)):
        elapsed = time.monotonic() - started
        done = share_done(step, elapsed, recipe)
        hurried |= done > step / recipe.steps
        if done >= 1:
            logger.info("trained %d of %d steps in %.0f s", step, recipe.steps, elapsed)
            break
        rate = recipe.learning_rate * min(1.0, (step + 1) / _WARM_UP) * max(0.02, 1 - done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**tensors(batch, tokenizer)).loss
        optimizer.zero_grad()
        # Every token has the same weight, whatever the length of its answer.
        (loss * (sum(len(lesson.answer) for lesson in batch) / usual)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        share = _PREPARED + (1 - _PREPARED) * done
        report(share, f"step {step + 1} of {recipe.steps}, loss {loss.item():.2f}")
    model.eval()
    return not hurried


def share_done(step: int, elapsed: float, recipe: Recipe) -> float:
    """The share of the training that is done, from 0 to 1 or more.

    Steps alone count until half of the time limit has passed; after that the larger share of steps and time.
    """
    by_steps, by_clock = step / recipe.steps, elapsed / recipe.limit_s
    return max(by_steps, by_clock) if by_clock > 0.5 else by_steps
