"""Image endpoints as documented, from a local server: vLLM-Omni and SGLang, Ark, OpenAI, the original's
own servers.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import provider_calls
import pytest
from fake_services import FakeServices, png
from PIL import Image

from coordinator.serve import image_servers
from coordinator.serve.serving import ServerSpec
from workers.errors import Cause, InfrastructureFault, JobError, ModelFault
from workers.metrics import telemetry
from workers.providers.http import api, keys
from workers.providers.image import openai
from workers.providers.provider import ProviderImage
from workers.settings import ImageModelSettings

SEEDREAM = "doubao-seedream-5-0-260128"
PICTURE = Image.new("RGB", (96, 64), "teal")


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServices]:
    for name in ("ARK_API_KEY", "OPENAI_API_KEY", "QWEN_IMAGE_SERVER_URL", "QWEN_EDIT_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    with FakeServices() as running:
        yield running


def configured(services: FakeServices, **fields: Any) -> ImageModelSettings:
    chosen = {
        "provider": "openai",
        "base_url": f"{services.url}/v1",
        "model": "Qwen/Qwen-Image",
        "size": "512x512",
    }
    return ImageModelSettings.model_validate({**chosen, "allow_private_addresses": True, **fields})


def generate(settings: ImageModelSettings, seed: int = 7) -> ProviderImage:
    return provider_calls.generate("a fox", settings, seed=seed, deadline=time.time() + 20)


def edit(settings: ImageModelSettings) -> ProviderImage:
    return provider_calls.edit("make it night", PICTURE, settings, seed=7, deadline=time.time() + 20)


def failure(settings: ImageModelSettings) -> JobError:
    with pytest.raises(JobError) as caught:
        generate(settings)
    return caught.value


def refused(code: str, status: int = 400, **more: Any) -> tuple[int, dict[str, str], Any]:
    return status, {}, {"error": {"code": code, "message": "no", "type": "invalid_request_error", **more}}


def test_a_users_server_gets_the_fields_of_a_diffusion_model(services: FakeServices) -> None:
    made = generate(configured(services, steps=9, guidance=3.5, negative_prompt="blurry"))
    assert Image.open(io.BytesIO(made.image)).size == (96, 64)
    (call,) = services.calls("/v1/images/generations")
    assert call.body == {
        "model": "Qwen/Qwen-Image",
        "prompt": "a fox",
        "n": 1,
        "size": "512x512",
        "response_format": "b64_json",
        "negative_prompt": "blurry",
        "num_inference_steps": 9,
        "true_cfg_scale": 3.5,
        "seed": 7,
    }
    assert call.authorization == ""
    assert made.source == {
        "provider": "openai",
        "model": "Qwen/Qwen-Image",
        "host": "127.0.0.1",
        "seed": 7,
        "steps": 9,
    }


def test_ark_gets_its_own_fields_and_the_key(services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_API_KEY", "the-key")
    gateway = {"base_url": f"{services.url}/api/v3", "model": SEEDREAM, "api_key_env": "ARK_API_KEY"}
    made = generate(configured(services, **gateway, size="2K"))
    (call,) = services.calls("/api/v3/images/generations")
    assert call.body == {
        "model": SEEDREAM,
        "prompt": "a fox",
        "size": "2K",
        "response_format": "b64_json",
        "watermark": False,
    }
    assert call.authorization == "Bearer the-key"
    assert made.source == {"provider": "openai", "model": SEEDREAM, "host": "127.0.0.1"}


@pytest.mark.parametrize("model", ["Qwen/Qwen-Image", SEEDREAM])
def test_another_host_is_not_sent_the_keys_of_ark_and_openai(
    model: str, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ARK_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "the-key")
    settings = configured(services, model=model)
    generate(settings)
    edit(ImageModelSettings.model_validate(settings.model_dump()))  # as workers read a saved file
    assert [call.authorization for call in services.seen] == ["", ""]


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("https://ark.cn-beijing.volces.com/api/v3", "ARK_API_KEY"),
        ("https://ark.ap-southeast.bytepluses.com/api/v3", "ARK_API_KEY"),
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("https://evilvolces.com/api/v3", ""),
        ("https://volces.com.example/api/v3", ""),
        ("https://api.openai.com.example/v1", ""),
        ("http://127.0.0.1:8091/v1", ""),
    ],
)
def test_by_default_a_key_goes_only_to_the_host_of_its_service(url: str, variable: str) -> None:
    assert keys.key_env("", url) == variable
    assert keys.key_env("OTHER_KEY", url) == "OTHER_KEY"


def test_a_key_that_is_named_and_not_set_fails_before_any_call(services: FakeServices) -> None:
    error = failure(configured(services, api_key_env="OTHER_KEY"))
    assert error.cause is Cause.AUTH
    assert "OTHER_KEY" in error.detail
    assert not services.seen


def test_ark_edits_by_a_generation_with_an_image(services: FakeServices) -> None:
    edit(configured(services, base_url=f"{services.url}/api/v3", model=SEEDREAM))
    (call,) = services.calls("/api/v3/images/generations")
    head, _, data = call.body["image"].partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 64)


def test_other_servers_edit_by_a_form_with_a_file(services: FakeServices) -> None:
    edit(configured(services))
    (call,) = services.calls("/v1/images/edits")
    assert Image.open(io.BytesIO(call.form.pop("image"))).size == (96, 64)
    assert call.form["prompt"] == "make it night"
    assert call.form["negative_prompt"] == " "
    assert call.form["seed"] == "7"


def test_a_form_can_be_sent_again_after_a_failure(services: FakeServices) -> None:
    services.script["/v1/images/edits"] = [(503, {}, "")]
    edit(configured(services))
    first, second = services.calls("/v1/images/edits")
    assert first.form == second.form


@pytest.mark.parametrize(
    ("url", "model", "dialect"),
    [
        ("https://ark.cn-beijing.volces.com/api/v3", "ep-20260101-abcde", "ark"),
        ("https://ark.ap-southeast.bytepluses.com/api/v3", "seedream-4-0-250828", "ark"),
        ("http://gateway.local/v1", SEEDREAM, "ark"),
        ("https://api.openai.com/v1", "gpt-image-1", "openai"),
        ("http://127.0.0.1:8091/v1", "Qwen/Qwen-Image", "server"),
        ("http://evil-volces.com.example/v1", "Qwen/Qwen-Image", "server"),
        ("http://evilvolces.com/v1", "Qwen/Qwen-Image", "server"),
    ],
)
def test_the_dialect_follows_host_and_model(url: str, model: str, dialect: str) -> None:
    assert openai.dialect(ImageModelSettings(provider="openai", base_url=url, model=model)) == dialect


def test_an_answer_by_url_is_fetched(services: FakeServices) -> None:
    answer = {"data": [{"url": f"{services.url}/picture.png"}]}
    services.script["/v1/images/generations"] = [(200, {}, answer)]
    assert Image.open(io.BytesIO(generate(configured(services)).image)).getpixel((1, 1)) == (255, 165, 0)


@pytest.mark.parametrize("nothing", ["", " ", None])
def test_base64_or_url_is_used_whichever_is_not_empty(services: FakeServices, nothing: Any) -> None:
    url, encoded = f"{services.url}/picture.png", base64.b64encode(png("orange")).decode()
    for entries in (
        [{"b64_json": nothing, "url": url}],
        [{"b64_json": encoded, "url": nothing}],
        [{"b64_json": nothing, "url": nothing}, {"url": url}],
        [{"url": f"data:image/png;base64,{encoded}"}],
    ):
        services.script["/v1/images/generations"] = [(200, {}, {"data": entries})]
        image = Image.open(io.BytesIO(generate(configured(services)).image))
        assert image.getpixel((1, 1)) == (255, 165, 0)


def test_an_answer_by_url_is_fetched_only_from_the_internet(services: FakeServices) -> None:
    answer = {"data": [{"url": f"{services.url}/picture.png"}]}
    services.script["/v1/images/generations"] = [(200, {}, answer)]
    assert failure(configured(services, allow_private_addresses=False)).cause is Cause.BAD_ANSWER
    assert not services.calls("/picture.png")


@pytest.mark.parametrize(
    "answer",
    [
        refused("content_policy_violation"),
        refused("moderation_blocked", type="image_generation_user_error"),
        refused("InputTextSensitiveContentDetected"),
        refused("OutputImageSensitiveContentDetected.PolicyViolation"),
        (200, {}, {"data": [{"error": {"code": "OutputImageSensitiveContentDetected", "message": "no"}}]}),
        (200, {}, {"data": [{"b64_json": "", "url": None, "error": {"code": "moderation"}}]}),
        (200, {}, {"error": {"code": "content_policy_violation", "message": "no"}}),
        (200, {}, {"error": {"code": "content_policy_violation", "message": "no"}, "data": []}),
        refused("contentFilter"),
        refused("DataInspectionFailed"),
        refused("InputTextRiskDetection"),
        refused("OutputImageRiskDetection"),
        refused("InputImageRiskDetection"),
        (400, {}, {"code": "DataInspectionFailed", "message": "no"}),
        refused("invalid_value", param="prompt"),
        refused("x", innererror={"code": "ResponsibleAIPolicyViolation"}),
        (413, {}, "<html>"),
    ],
)
def test_a_refused_prompt_is_the_models_fault(services: FakeServices, answer: Any) -> None:
    services.script["/v1/images/generations"] = [answer]
    error = failure(configured(services))
    assert isinstance(error, ModelFault)
    assert error.cause is Cause.PROMPT_REFUSED


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (refused("invalid_size"), Cause.BAD_ANSWER),
        (refused("x", param="size"), Cause.BAD_ANSWER),
        (refused("unheard_of"), Cause.BAD_ANSWER),
        (refused("model_not_found", 404), Cause.BAD_ANSWER),
        (refused("billing_hard_limit_reached"), Cause.QUOTA),
        ((200, {}, {"error": {"code": "insufficient_quota", "message": "no"}}), Cause.QUOTA),
        (refused("AuthenticationError", 401), Cause.AUTH),
        (refused("AccessDenied", 403), Cause.AUTH),
        (refused("AccountOverdueError", 403), Cause.QUOTA),
        (
            (429, {"Retry-After": "600"}, {"error": {"code": "RateLimitExceeded", "message": "slow down"}}),
            Cause.QUOTA,
        ),
        ((200, {}, {"data": []}), Cause.BAD_ANSWER),
        ((200, {}, {"data": [{}]}), Cause.BAD_ANSWER),
        ((200, {}, {"data": [{"b64_json": "%%%"}]}), Cause.BAD_ANSWER),
        ((200, {}, {"data": [{"b64_json": base64.b64encode(png()[:50]).decode()}]}), Cause.BAD_ANSWER),
        ((200, {}, "no json"), Cause.BAD_ANSWER),
    ],
)
def test_other_failures_are_infrastructure_failures(
    services: FakeServices, answer: Any, cause: Cause
) -> None:
    services.script["/v1/images/generations"] = [answer]
    error = failure(configured(services))
    assert isinstance(error, InfrastructureFault)
    assert error.cause is cause
    assert len(services.seen) == 1


def test_ark_without_a_key_fails_before_any_call(services: FakeServices) -> None:
    error = failure(configured(services, base_url="https://ark.cn-beijing.volces.com/api/v3"))
    assert error.cause is Cause.AUTH
    assert "ARK_API_KEY" in error.detail


def qwen(services: FakeServices, **fields: Any) -> ImageModelSettings:
    return ImageModelSettings.model_validate({"provider": "qwen_server", "base_url": services.url, **fields})


def test_the_original_server_gets_only_prompt_and_image(services: FakeServices) -> None:
    deadline = time.time() + 20
    made = provider_calls.generate("a fox", qwen(services), seed=1, deadline=deadline)
    assert Image.open(io.BytesIO(made.image)).size == (96, 64)
    provider_calls.edit("make it night", PICTURE, qwen(services), seed=1, deadline=deadline)
    (first, second) = services.seen
    assert (first.path, first.body) == ("/generate/", {"prompt": "a fox"})
    assert second.path == "/edit/"
    assert second.body["prompt"] == "make it night"
    assert Image.open(io.BytesIO(base64.b64decode(second.body["image_b64"]))).format == "PNG"


def test_the_original_server_may_be_named_by_the_environment(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_IMAGE_SERVER_URL", services.url + "/")
    provider_calls.generate("a fox", qwen(services, base_url=""), seed=1, deadline=time.time() + 20)
    assert services.seen[0].path == "/generate/"


@pytest.mark.parametrize(
    "answer", [{"status": "error", "images": []}, {"status": "success", "images": []}, {"status": "success"}]
)
def test_an_answer_without_an_image_is_a_bad_answer(services: FakeServices, answer: Any) -> None:
    services.script["/generate/"] = [(200, {}, answer)]
    with pytest.raises(InfrastructureFault) as caught:
        provider_calls.generate("a fox", qwen(services), seed=1, deadline=time.time() + 20)
    assert caught.value.cause is Cause.BAD_ANSWER


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, {"status": "error", "message": "NSFW content detected"}),
        (200, {"status": "rejected", "images": []}),
        (200, {"status": "failed", "error": "the prompt is too long"}),
        (400, {"detail": "no"}),
        (403, {"detail": "the prompt violates our policy"}),
        (422, {"detail": "unheard of"}),
        (500, {"detail": "NSFW content detected"}),
    ],
)
def test_the_original_server_refuses_prompt_or_image(
    services: FakeServices, status: int, answer: Any
) -> None:
    services.script["/generate/"] = services.script["/edit/"] = [(status, {}, answer)] * 2
    for ask in (
        lambda: provider_calls.generate("a fox", qwen(services), seed=1, deadline=time.time() + 20),
        lambda: provider_calls.edit("night", PICTURE, qwen(services), seed=1, deadline=time.time() + 20),
    ):
        with pytest.raises(ModelFault) as caught:
            ask()
        assert caught.value.cause is Cause.PROMPT_REFUSED


@pytest.mark.parametrize(
    ("status", "answer", "cause"),
    [
        (200, {"status": "error", "message": "CUDA out of memory"}, Cause.BAD_ANSWER),
        (404, {"detail": "Not Found"}, Cause.BAD_ANSWER),
        (
            422,
            {"detail": [{"loc": ["body", "image"], "msg": "Field required", "type": "missing"}]},
            Cause.BAD_ANSWER,
        ),
        (401, {"detail": "no"}, Cause.AUTH),
        (403, {"detail": "Not authenticated"}, Cause.AUTH),
        (500, {"detail": "CUDA error: flagged"}, Cause.PROVIDER_DOWN),
    ],
)
def test_other_errors_of_the_original_server_are_infrastructure_failures(
    services: FakeServices, monkeypatch: pytest.MonkeyPatch, status: int, answer: Any, cause: Cause
) -> None:
    monkeypatch.setattr(api, "MAX_TRIES", 1)
    services.script["/generate/"] = [(status, {}, answer)]
    with pytest.raises(InfrastructureFault) as caught:
        provider_calls.generate("a fox", qwen(services), seed=1, deadline=time.time() + 20)
    assert caught.value.cause is cause


@pytest.mark.parametrize("words", ["Invalid API key", "CUDA out of memory: quota", "see our content policy"])
def test_the_repeated_prompt_does_not_decide_the_fault(services: FakeServices, words: str) -> None:
    prompt = f"a poster that says: {words}"
    for said in (f"no: {prompt}", f"no: {prompt[:-2]}…"):
        services.script["/v1/images/generations"] = [refused("x", message=said)]
        with pytest.raises(InfrastructureFault) as unknown:
            provider_calls.generate(prompt, configured(services), seed=7, deadline=time.time() + 20)
        assert unknown.value.cause is Cause.BAD_ANSWER
        services.script["/generate/"] = [(400, {}, {"detail": said})]
        with pytest.raises(ModelFault):
            provider_calls.generate(prompt, qwen(services), seed=1, deadline=time.time() + 20)


def test_an_unknown_refusal_is_counted_and_logged_once(
    services: FakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    phrase = f"unheard_of_{time.time_ns()}x"
    services.script["/v1/images/generations"] = [refused("y", message=f"{phrase} {n}") for n in range(2)]
    before = count("openai", 400)
    for _ in range(2):
        assert failure(configured(services)).cause is Cause.BAD_ANSWER
    assert count("openai", 400) == before + 2
    received = [record for record in caplog.records if "unheard_of" in record.getMessage()]
    assert len(received) == 1


def count(provider: str, status: int) -> float:
    labels = {"provider": provider, "status": str(status)}
    return telemetry.registry().get_sample_value("llmi_unknown_refusals_total", labels) or 0.0


# What `ops/serve_images.sh` waits for.


def served(services: FakeServices, model: str) -> ServerSpec:
    return ServerSpec("vllm-omni", ("vllm",), f"{services.url}/v1", model, "")


@pytest.mark.parametrize(
    ("model", "path"),
    [("Qwen/Qwen-Image", "/v1/images/generations"), ("Qwen/Qwen-Image-Edit-2509", "/v1/images/edits")],
)
def test_a_served_model_is_ready_after_one_image(services: FakeServices, model: str, path: str) -> None:
    assert 0 < image_servers.probe_server(served(services, model)) < 20
    assert [call.path for call in services.seen] == [path]


@pytest.mark.parametrize("answer", [refused("content_policy_violation"), (200, {}, {"data": []})])
def test_a_server_that_is_up_but_makes_no_image_is_not_ready(services: FakeServices, answer: Any) -> None:
    services.script["/v1/images/generations"] = [answer] * 3
    with pytest.raises(InfrastructureFault):
        image_servers.probe_server(served(services, "Qwen/Qwen-Image"))
