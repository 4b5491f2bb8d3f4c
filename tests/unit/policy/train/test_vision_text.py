"""A model that reads images gets batches of text alone, too."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.config.settings import load
from policy.train.options.libraries import VISION_TEXT, libraries

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    sizes = {"hidden_size": 32, "intermediate_size": 32}
    text = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64}
    vision = {"depth": 1, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
    tokens = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62}
    config = Qwen2_5_VLConfig(
        text_config={**sizes, **text, "bos_token_id": 0, "eos_token_id": 1},
        vision_config={**sizes, **vision},
        **tokens,
    )
    return Qwen2_5_VLModel(config)


def test_text_alone_gets_its_own_embeddings(model: Any) -> None:
    import torch

    from policy.train.vision_text import get_input_embeds

    ids = torch.tensor([[5, 6, 7]])
    embedded, mask = get_input_embeds(model, ids, attention_mask=torch.ones_like(ids))
    assert torch.equal(embedded, model.get_input_embeddings()(ids))
    assert torch.equal(mask, torch.ones_like(ids))
    embedded.sum().backward()
    assert all(weights.grad is not None for weights in model.visual.parameters())  # every rank ran the tower


def test_images_are_embedded_as_before(model: Any) -> None:
    import torch

    from policy.train.vision_text import _embed, get_input_embeds

    ids, grid = torch.tensor([[5, 62, 60, 60, 60, 60, 7]]), torch.tensor([[1, 4, 4]])
    pixels = torch.randn(16, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(1))
    images = {"pixel_values": pixels, "image_grid_thw": grid}
    assert torch.equal(get_input_embeds(model, ids, **images)[0], _embed(model, ids, **images)[0])


def test_verl_itself_cannot(model: Any) -> None:
    import torch

    from policy.train.vision_text import _embed

    with pytest.raises(AttributeError, match="mean"):
        _embed(model, torch.tensor([[5, 6, 7]]))


@pytest.mark.parametrize(("name", "wanted"), [("qwen2_5_vl_7b_grpo", True), ("qwen3_4b_grpo", False)])
def test_workers_of_a_model_that_reads_images_import_it(name: str, wanted: bool) -> None:
    assert (VISION_TEXT in libraries(load(name).train)) == wanted
