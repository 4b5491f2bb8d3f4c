"""The tiny policy: built into an ordinary model folder, cached, repeatable, and able to write tags."""

from __future__ import annotations

import hashlib
import io
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from llmi.demo.policy.build import build_policy, cut_short, share_done
from llmi.demo.policy.recipe import RECIPES, Recipe, cache_key
from llmi.demo.prompts.corpus import Prompt, prompts
from policy.data.dataset import place_images

pytestmark = pytest.mark.long

QUICK = Recipe(documents=64, steps=3, batch=8, vocabulary=512)


@pytest.fixture(scope="module")
def text_policy(tmp_path_factory):
    return build_policy("text", tmp_path_factory.mktemp("cache"), seed=0, recipe=QUICK)


@pytest.fixture(scope="module")
def vl_policy(tmp_path_factory):
    return build_policy("vl", tmp_path_factory.mktemp("cache"), seed=0, recipe=QUICK)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def sample(folder: Path, asked: list[Prompt], *, tokens: int) -> list[str]:
    """One answer to each of `asked`, at temperature 1, through transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    pictured = bool(asked[0].image)
    if pictured:
        model, processor = (
            AutoModelForImageTextToText.from_pretrained(folder),
            AutoProcessor.from_pretrained(folder),
        )
        tokenizer = processor.tokenizer
    else:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    chats = [[{"role": "user", "content": prompt.text}] for prompt in asked]
    chats = [place_images(chat, 1) for chat in chats] if pictured else chats
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats
    ]
    if pictured:
        images = [[Image.open(io.BytesIO(prompt.image)).convert("RGB")] for prompt in asked]
        given = processor(text=texts, images=images, padding=True, return_tensors="pt")
    else:
        given = tokenizer(texts, padding=True, return_tensors="pt")
    torch.manual_seed(0)
    made = model.eval().generate(**given, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=tokens)
    return tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :], skip_special_tokens=True)


def test_the_folder_is_found_again_without_building(text_policy):
    said = []
    again = build_policy(
        "text",
        text_policy.parent,
        seed=0,
        recipe=QUICK,
        progress=lambda share, text: said.append((share, text)),
    )
    assert again == text_policy
    assert said == [(1.0, "tiny text policy found in the cache")]


@pytest.mark.parametrize("kind", ["text", "vl"])
def test_teaching_again_gives_the_same_model_to_the_last_bit(kind, request, tmp_path):
    first = request.getfixturevalue(f"{kind}_policy")
    again = build_policy(kind, tmp_path, seed=0, recipe=QUICK)
    assert (again / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    assert weights(again) == weights(first)


@pytest.mark.parametrize(
    ("step", "elapsed", "share"),
    [(0, 40.0, 0.0), (10, 49.0, 0.1), (50, 50.0, 0.5), (60, 55.0, 0.6), (50, 60.0, 0.6), (10, 100.0, 1.0)],
)
def test_the_clock_counts_only_when_half_of_the_time_is_gone(step, elapsed, share):
    assert share_done(step, elapsed, Recipe(documents=1, steps=100, limit_s=100)) == pytest.approx(share)


def test_another_seed_gives_another_model(text_policy, tmp_path):
    assert weights(build_policy("text", tmp_path, seed=1, recipe=QUICK)) != weights(text_policy)


def test_another_seed_or_recipe_is_another_entry_of_the_cache():
    keys = {
        cache_key("text", QUICK, 0),
        cache_key("text", QUICK, 1),
        cache_key("vl", QUICK, 0),
        cache_key("text", RECIPES["text"], 0),
    }
    assert len(keys) == 4


def test_a_build_that_fails_leaves_nothing_in_the_cache(tmp_path):
    class Stopped(Exception):
        pass

    def stop(share: float, text: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        build_policy("text", tmp_path, seed=0, recipe=QUICK, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_never_goes_back_and_ends_at_one(tmp_path):
    shares: list[float] = []
    build_policy("text", tmp_path, seed=3, recipe=QUICK, progress=lambda share, text: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_policy_with_training_cut_short_is_not_cached(tmp_path):
    hurried = Recipe(documents=16, steps=10_000, batch=8, vocabulary=400, limit_s=0.5)
    said: list[str] = []
    for _ in range(2):
        said.clear()
        folder = build_policy(
            "text", tmp_path, seed=0, recipe=hurried, progress=lambda share, text: said.append(text)
        )
        assert cut_short(folder)
        assert said[-2].startswith("step ")


def test_a_policy_taught_to_the_end_is_not_cut_short(text_policy):
    assert not cut_short(text_policy)


@pytest.mark.parametrize(
    "text", ["a\n\nb  c\t", "Umsätze – 売上 😀", "<imgen>{'a': 'it\\'s'}</imgen>\n<imgen>", "<image>"]
)
def test_the_tokenizer_gives_back_any_text_tags_included(text_policy, text):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text_policy)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_chat_template_writes_turns_as_qwen_does(vl_policy):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(vl_policy)
    chat = [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a\n"}, {"type": "image"}, {"type": "text", "text": " b"}],
        },
    ]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\ns<|im_end|>\n"
        "<|im_start|>user\na\n<|vision_start|><|image_pad|><|vision_end|> b<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_quickly_built_text_policy_generates(text_policy):
    asked = list(islice(prompts(1, "test", pictures=False), 2))
    assert len(sample(text_policy, asked, tokens=8)) == 2


def test_a_quickly_built_vision_policy_reads_images(vl_policy):
    asked = list(islice(prompts(1, "test", pictures=True), 2))
    assert len(sample(vl_policy, asked, tokens=8)) == 2


def test_the_image_changes_what_the_vision_policy_predicts(vl_policy):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = (
        AutoModelForImageTextToText.from_pretrained(vl_policy),
        AutoProcessor.from_pretrained(vl_policy),
    )
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    with torch.no_grad():
        red, blue = (
            model(
                **processor(text=[text], images=[Image.new("RGB", (84, 84), color)], return_tensors="pt")
            ).logits
            for color in ("red", "blue")
        )
    assert red.shape[1] == 2 + 9
    assert not torch.allclose(red[:, -1], blue[:, -1])
