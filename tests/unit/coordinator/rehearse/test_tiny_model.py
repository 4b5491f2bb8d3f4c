"""Models of a rehearsal: small, of the same architecture, with the tokenizer of the model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_folders import PUBLISHED, write_model_folder

from coordinator.rehearse.shrink import EXPERTS, EXPERTS_USED, LAYERS, shrunk
from coordinator.rehearse.teach import documents, teach
from coordinator.rehearse.tiny_model import build
from policy.document import ImagePart
from policy.grammar.tags import read
from policy.tools import tool_names
from workers.errors import ConfigError

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    return {name: write_model_folder(name, folder / name) for name in PUBLISHED}


@pytest.fixture(scope="module")
def tiny(published: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    for name, source in published.items():
        build(str(source), folder / name, steps=2)
    return {name: folder / name for name in published}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architecture_is_kept_and_the_model_small(name: str, tiny: dict[str, Path]) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny[name])
    assert config.architectures == PUBLISHED[name]["architectures"]
    assert config.model_type == PUBLISHED[name]["model_type"]
    assert config.get_text_config().num_hidden_layers == LAYERS
    assert (tiny[name] / "model.safetensors").stat().st_size < 16 * 2**20


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_reads_a_chat_with_its_own_tokenizer(
    name: str, published: dict[str, Path], tiny: dict[str, Path]
) -> None:
    import torch
    import transformers

    kind = getattr(transformers, PUBLISHED[name]["architectures"][0])
    model = kind.from_pretrained(tiny[name])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny[name])
    chat = [{"role": "user", "content": "Write about a lighthouse."}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    own = transformers.AutoTokenizer.from_pretrained(published[name])
    assert ids == own.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    logits = model(input_ids=torch.tensor([ids])).logits
    assert logits.shape == (1, len(ids), len(tokenizer))
    assert torch.isfinite(logits).all()


def test_a_vision_model_sees_an_image(tiny: dict[str, Path]) -> None:
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = tiny["Qwen2.5-VL-7B"]
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": "Describe it."}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.new("RGB", (64, 64), "teal")], return_tensors="pt")
    logits = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)(**inputs).logits
    assert torch.isfinite(logits).all()


def test_experts_stay_experts() -> None:
    small = shrunk(PUBLISHED["Qwen3-30B-A3B"])
    assert (small["num_experts"], small["num_experts_per_tok"]) == (EXPERTS, EXPERTS_USED)
    assert small["head_dim"] == 128


def test_lists_of_layers_are_as_long_as_the_layers() -> None:
    small = shrunk({"num_hidden_layers": 4, "layer_types": ["a", "b", "a", "b"], "eos_token_id": [1, 2]})
    assert small["layer_types"] == ["a", "b"]
    assert small["eos_token_id"] == [1, 2]


def test_a_small_model_does_not_grow() -> None:
    config = {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 64, "intermediate_size": 96}
    assert shrunk(config) == config


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder("Qwen3-4B", tmp_path / "model")
    change(folder, vocab_size=100)
    with pytest.raises(ConfigError, match="vocab_size of 100"):
        build(str(folder), tmp_path / "tiny")


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder("Qwen3-4B", tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        build(str(folder), tmp_path / "tiny")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder("Qwen3-4B", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ConfigError, match="has no tokenizer"):
        build(str(folder), tmp_path / "tiny")


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    folder = write_model_folder("Qwen3-4B", tmp_path / "model")
    change(folder, architectures=["Qwen9ForCausalLM"])
    with pytest.raises(ConfigError, match="has no Qwen9ForCausalLM"):
        build(str(folder), tmp_path / "tiny")


def test_a_hub_id_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"hf download owner/absent .* train.model=FOLDER"):
        build("owner/absent", tmp_path / "tiny")


def test_the_documents_of_the_lessons_have_a_valid_tag_for_every_tool() -> None:
    tags = [part for text in documents() for part in read(text, inputs=0) if isinstance(part, ImagePart)]
    assert {tag.tag.source for tag in tags} == set(tool_names())
    assert sum(text.count("<imgen>") for text in documents()) == len(tags)


def test_lessons_lower_the_loss_and_leave_other_tokens_alike(tiny: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    folder = tiny["Qwen3-4B"]
    model, tokenizer = Qwen3ForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    first, last = teach(model, tokenizer, steps=1), teach(model, tokenizer, steps=12)
    assert last < first / 2
    unseen = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert model.lm_head.weight[unseen].mean().item() == pytest.approx(0.1, abs=0.02)
