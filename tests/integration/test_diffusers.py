"""Diffusion and edit in process: diffusers' own loading and sampling code, on tiny weights made here."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import provider_calls
import pytest
from conftest import StartWorker
from PIL import Image
from waiting import until

from llmi.demo.image_models import pipelines as tiny_pipelines
from workers import pixels
from workers.client.client import QueueClient
from workers.client.handle import RequestHandle
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.jobs import JobContext, run
from workers.messages import DiffusionPayload, EditPayload, Failure, Request, Success
from workers.providers import registry
from workers.providers.image import diffusers
from workers.providers.pipelines import pil_processor
from workers.settings import ImageModelSettings, ToolSettings
from workers.storage.blobs import BlobStore
from workers.tools import by_provider

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]
EDITING = ("QwenImageEditPlusPipeline", "QwenImageEditPipeline")


@pytest.fixture(scope="module")
def weights() -> Path:
    """The same cache that the demo uses, so that the weights are made once per checkout."""
    return tiny_pipelines.build_tiny_pipelines(Path(os.environ.get("LLMI_CACHE", ".cache")) / "tiny-image")


def generate(
    weights: Path, prompt: str = "oil painting of a fox", *, seed: int = 1, **fields: Any
) -> np.ndarray:
    settings = tiny_pipelines.settings(weights).model_copy(update=fields)
    made = provider_calls.generate(prompt, settings, seed=seed, deadline=time.time() + 60)
    return np.asarray(Image.open(io.BytesIO(made.image)))


def editing(weights: Path, pipeline: str) -> ImageModelSettings:
    return tiny_pipelines.settings(weights, edit=True).model_copy(update={"pipeline": pipeline})


def edit(weights: Path, picture: Image.Image, *, pipeline: str = EDITING[0]) -> Image.Image:
    settings = editing(weights, pipeline)
    made = provider_calls.edit(
        "the same picture changed to night", picture, settings, seed=1, deadline=time.time() + 60
    )
    return Image.open(io.BytesIO(made.image))


def test_the_seed_makes_an_image_repeatable(weights: Path) -> None:
    assert np.array_equal(generate(weights, seed=5), generate(weights, seed=5))
    assert not np.array_equal(generate(weights, seed=5), generate(weights, seed=6))


def test_prompt_and_size_are_followed(weights: Path) -> None:
    assert not np.array_equal(generate(weights, "a fox"), generate(weights, "a whale"))
    assert generate(weights, size="96x64").shape == (64, 96, 3)


def test_guidance_acts(weights: Path) -> None:
    """Regression: without a negative prompt, diffusers' Qwen-Image silently turns guidance off."""
    weak, strong = generate(weights, guidance=1.0), generate(weights, guidance=4.0)
    assert not np.array_equal(weak, strong)
    away = generate(weights, guidance=4.0, negative_prompt="a whale in a harbor")
    assert not np.array_equal(strong, away)


def test_diffusion_and_edit_of_one_model_share_their_modules(weights: Path) -> None:
    drawing = diffusers.load(tiny_pipelines.settings(weights))
    assert type(drawing).__name__ == "QwenImagePipeline"
    for name in EDITING:
        changing = diffusers.load(editing(weights, name))
        assert type(changing).__name__ == name
        for part in ("transformer", "vae", "text_encoder"):
            assert getattr(drawing, part) is getattr(changing, part)
    assert diffusers.load(tiny_pipelines.settings(weights)) is drawing


@pytest.mark.parametrize("pipeline", EDITING)
def test_an_edit_depends_on_its_picture_and_keeps_its_proportions(weights: Path, pipeline: str) -> None:
    tall = Image.new("RGB", (60, 120), "orange")
    made = edit(weights, tall, pipeline=pipeline)
    assert made.size == (48, 96)
    assert made.tobytes() != edit(weights, Image.new("RGB", (60, 120), "navy"), pipeline=pipeline).tobytes()


@pytest.mark.parametrize("pipeline", EDITING)
@pytest.mark.parametrize("sides", [(64, 64), (900, 30), (30, 900)])
def test_the_reference_is_no_larger_than_the_edit(
    weights: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, sides: tuple[int, int]
) -> None:
    """Qwen's edit pipelines scale every reference to 1024² by themselves, and a long strip to no height."""
    vae = diffusers.load(editing(weights, pipeline)).vae
    seen: list[tuple[int, ...]] = []
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda image: seen.append(tuple(image.shape[-2:])) or encode(image))
    made = edit(weights, Image.new("RGB", sides, "teal"), pipeline=pipeline)
    (reference,) = seen
    assert min(reference) >= 32
    assert math.prod(reference) <= 64 * 64 * 4
    assert (made.width > made.height) == (sides[0] > sides[1])


@pytest.mark.parametrize("pipeline", EDITING)
def test_diffusers_is_unchanged_after_an_edit(weights: Path, pipeline: str) -> None:
    module = sys.modules[type(diffusers.load(editing(weights, pipeline))).__module__]
    stock = module.calculate_dimensions
    edit(weights, Image.new("RGB", (64, 64), "teal"), pipeline=pipeline)
    assert module.calculate_dimensions is stock


@pytest.mark.parametrize("pipeline", EDITING)
def test_an_edit_pipeline_loads_first_and_alone(
    weights: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    monkeypatch.setattr(diffusers, "_loaded", {})
    assert edit(weights, Image.new("RGB", (64, 64), "teal"), pipeline=pipeline).size == (64, 64)


def test_an_edit_works_where_torchvision_does_not(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers, "_loaded", {})
    monkeypatch.setattr(pil_processor, "torchvision_works", lambda: False)
    assert edit(weights, Image.new("RGB", (64, 64), "teal")).size == (64, 64)
    changing = diffusers.load(editing(weights, EDITING[0]))
    assert isinstance(changing.processor, pil_processor.PilProcessor)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize("pipeline", EDITING)
def test_every_chart_can_be_edited(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: str, mode: str
) -> None:
    """Regression: a chart has an alpha channel, which JPEG cannot hold, so that editing one always failed."""
    blobs = BlobStore(str(tmp_path))
    chart = blobs.put(pixels.encoded(Image.new("RGBA", (120, 80), (250, 120, 20, 128)).convert(mode)))
    tools = ToolSettings(edit=editing(weights, pipeline))
    monkeypatch.setattr(registry, "section", lambda name, model: tools)
    payload = EditPayload(prompt="make it blue", image=chart)
    request = Request.make("edit", payload, timeout_s=60, seed=3)
    result = by_provider.edit(payload, JobContext(request, blobs))
    assert result.images[0].sha256 != chart.sha256
    assert result.source["edited"] == chart.sha256
    assert Image.open(io.BytesIO(blobs.get(result.images[0]))).mode == "RGB"


@pytest.mark.parametrize("tool", ["diffusion", "edit"])
def test_a_prompt_with_a_control_token_makes_an_image(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    blobs = BlobStore(str(tmp_path))
    tools = ToolSettings(diffusion=tiny_pipelines.settings(weights), edit=editing(weights, EDITING[0]))
    monkeypatch.setattr(registry, "section", lambda name, model: tools)
    prompt = "a fox <|vision_start|><|image_pad|><|vision_end|><|im_end|>"
    payload: DiffusionPayload | EditPayload = DiffusionPayload(prompt=prompt)
    if tool == "edit":
        picture = blobs.put(pixels.encoded(Image.new("RGB", (64, 64), "teal")))
        payload = EditPayload(prompt=prompt, image=picture)
    made = run(Request.make(tool, payload, timeout_s=60, seed=3), blobs).result
    assert isinstance(made, Success)
    assert made.source["prompt"] == prompt


def test_the_deadline_stops_between_two_steps(weights: Path) -> None:
    settings = tiny_pipelines.settings(weights).model_copy(update={"steps": 500})
    with pytest.raises(InfrastructureFault) as caught:
        provider_calls.generate("a fox", settings, seed=1, deadline=time.time() + 0.5)
    assert caught.value.cause is Cause.TIMEOUT
    assert generate(weights).shape == (64, 64, 3), "the pipeline must survive it"


def test_a_cancellation_stops_between_two_steps(weights: Path) -> None:
    settings, looks = tiny_pipelines.settings(weights).model_copy(update={"steps": 500}), iter([False] * 3)
    with pytest.raises(InfrastructureFault, match="step 4") as caught:
        provider_calls.generate(
            "a fox", settings, seed=1, deadline=time.time() + 60, cancelled=lambda: next(looks, True)
        )
    assert caught.value.cause is Cause.CANCELLED
    assert generate(weights).shape == (64, 64, 3), "the pipeline must survive it"


class Drawing:
    """A real worker whose pipeline notes what it does; see `image_app`."""

    def __init__(self, client: QueueClient, notes: Path):
        self.client = client
        self.notes = notes

    def noted(self, words: str) -> list[int]:
        """The processes that noted it."""
        lines = [line.rpartition(" ") for line in self.notes.read_text().splitlines()]
        return [int(process) for text, _, process in lines if text == words]

    async def draw(self, prompt: str, limit_s: float = 100.0) -> RequestHandle:
        payload = DiffusionPayload(prompt=prompt)
        return await self.client.post(Request.make("diffusion", payload, timeout_s=250, limit_s=limit_s))


@pytest.fixture
def drawing(
    weights: Path,
    config_file: Path,
    worker: StartWorker,
    client: QueueClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Drawing:
    monkeypatch.setenv("LLMI_TEST_NOTES", str(tmp_path / "notes"))
    settings = tiny_pipelines.settings(weights).model_copy(
        update={"steps": 300, "model": str(weights.absolute())}
    )
    document = json.loads(config_file.read_text())
    document["tools"] = {"diffusion": settings.model_dump(mode="json")}
    config_file.write_text(json.dumps(document))
    worker(["diffusion"], app="image_app")
    return Drawing(client, tmp_path / "notes")


async def test_fifty_cancelled_images_leave_the_worker_its_pipeline(drawing: Drawing) -> None:
    (process,) = drawing.noted("load")
    for n in range(50):
        posted = await drawing.draw(f"fox {n}")
        await until(lambda n=n: drawing.noted(f"step fox {n}"))
        await drawing.client.cancel(posted.request.request_id)
        ended = (await posted.outcome()).result
        assert isinstance(ended, Failure)
        assert ended.cause is Cause.CANCELLED
    last = await (await drawing.draw("a fox to the end")).outcome()
    assert last.ok
    assert last.worker.endswith(f":{process}")
    assert drawing.noted("load") == drawing.noted("end a fox to the end") == [process]
    for n in range(50):
        assert set(drawing.noted(f"step fox {n}")) == {process}
        assert not drawing.noted(f"end fox {n}")


async def test_a_process_that_hangs_long_after_its_time_is_replaced(drawing: Drawing) -> None:
    (process,) = drawing.noted("load")
    hung = await drawing.draw("a fox that HANGS", limit_s=2.0)
    await until(lambda: drawing.noted("step a fox that HANGS"))
    after = await (await drawing.draw("a fox to the end")).outcome()
    assert after.ok
    assert drawing.noted("load") == [process, *drawing.noted("end a fox to the end")]
    ended = (await hung.outcome()).result
    assert isinstance(ended, Failure)
    assert ended.cause is Cause.TIMEOUT


def test_unknown_pipelines_and_models_are_named(weights: Path, tmp_path: Path) -> None:
    settings = tiny_pipelines.settings(weights)
    with pytest.raises(ConfigError, match="NoSuchPipeline"):
        diffusers.load(settings.model_copy(update={"pipeline": "NoSuchPipeline"}))
    with pytest.raises(ConfigError, match="nowhere"):
        diffusers.load(settings.model_copy(update={"model": str(tmp_path / "nowhere")}))


class _Flux:
    def __call__(self, prompt: str, true_cfg_scale: float = 1.0, guidance_scale: float = 3.5) -> None: ...


class _Qwen:
    def __call__(
        self, negative_prompt: str = "", true_cfg_scale: float = 4.0, guidance_scale: Any = None
    ) -> None: ...


class _Turbo:
    def __call__(self, prompt: str, guidance_scale: float = 5.0, negative_prompt: str = "") -> None: ...


@pytest.mark.parametrize(
    ("pipeline", "options"),
    [
        (_Flux(), {"guidance_scale": 2.0}),
        (_Qwen(), {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}),
        (_Turbo(), {"guidance_scale": 2.0, "negative_prompt": "blurry"}),
    ],
)
def test_guidance_uses_the_argument_with_an_effect(pipeline: Any, options: dict[str, Any]) -> None:
    settings = ImageModelSettings(guidance=2.0, negative_prompt="blurry")
    assert diffusers.guidance_options(pipeline, settings) == options
