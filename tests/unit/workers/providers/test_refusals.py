"""What error answers mean, in the shapes in which services give them: OpenAI, Azure, DashScope, Ark, Gemini,
Anthropic, OpenRouter, LiteLLM, FastAPI, vLLM, SGLang, TGI, llama.cpp, Zhipu, SerpAPI.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers.http.refusals import Meaning, image_limit, is_content_code, meaning, read


def error(message: str = "no", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


AZURE = error(
    "The response was filtered",
    code="OperationNotSupported",
    innererror={
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": True}},
    },
)
LITELLM = error(
    "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - blocked", code="400"
)
ROUTED = {
    "error": {
        "code": 400,
        "message": "Provider returned error",
        "metadata": {"provider_name": "Azure", "raw": '{"error":{"code":"content_filter","message":"x"}}'},
    }
}
OPENROUTER = {
    "error": {
        "code": 403,
        "message": "Input refused by Anthropic",
        "metadata": {"reasons": ["violence"], "flagged_input": "the words of the document"},
    }
}

CONTENT = [
    (400, error(code="content_filter")),
    (400, error(code="content_policy_violation")),
    (400, error(code="moderation_blocked", type="image_generation_user_error")),
    (400, error(code="invalid_prompt")),
    (400, error(code="contentFilter")),
    (400, error(type="content_policy_violation")),
    (400, AZURE),
    (400, LITELLM),
    (400, ROUTED),
    (403, OPENROUTER),
    (400, error(code="DataInspectionFailed")),
    (400, {"code": "data_inspection_failed", "message": "no", "request_id": "7"}),
    (400, {"code": "DataInspectionFailed", "message": "no", "request_id": "7"}),
    (400, {"code": "IPInfringementSuspect", "message": "no"}),
    (400, error(code="SensitiveContentDetected.SevereViolation")),
    (400, error(code="InputTextRiskDetection")),
    (400, error(code="OutputImageRiskDetection")),
    (400, error(code="InputImageRiskDetection")),
    (400, error(code="InputTextSensitiveContentDetected")),
    (400, {"error": "Input data may contain inappropriate content."}),
    (400, error("Your request was rejected as a result of our safety system.")),
    (400, error("Invalid prompt: your prompt was flagged as potentially violating our usage policy.")),
    (400, error("triggering Azure OpenAI's content management policy. Please modify your prompt")),
    (400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
    (400, {"message": "prompt contains sensitive words, see content policy"}),
    (400, {"detail": "NSFW content detected"}),
    (422, {"detail": [{"loc": ["body", "prompt"], "msg": "prompt was rejected", "type": "value_error"}]}),
    (403, error(code="content_filter")),
    (403, error("This request violates our policies")),
    (451, {}),
    (500, error(code="content_filter")),
    (200, error(code="content_policy_violation")),
    (200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    (200, {"candidates": [{"finishReason": "SAFETY"}]}),
    (
        200,
        {"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]},
    ),
    (200, {"data": [{"error": {"code": "OutputImageSensitiveContentDetected"}}]}),
    (200, {"data": [{"url": "", "respect_moderation": False, "error": "moderation"}]}),
    (200, {"status": "refused", "images": []}),
    (200, {"type": "message", "stop_reason": "refusal", "content": []}),
    (400, error("Content Exists Risk")),
    (400, error("The request was rejected because it was considered high risk")),
    (400, {"Response": {"Error": {"Code": "OperationFailed.TextIllegalDetected", "Message": "no"}}}),
    (403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines."}),
    (200, {"status": "Request Moderated"}),
    (200, {"predictions": [{"raiFilteredReason": "x"}]}),
    (200, {"promptFeedback": {"blockReason": "OTHER"}}),
    (446, {"error": {"message": "The guardrail checks have failed"}}),
    (400, {"name": "x", "errors": ["Your request was flagged by our content moderation system"]}),
    (200, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive: sensitive content"}}),
]

VLLM = (
    "This model's maximum context length is 8192 tokens. However, you requested 20064 tokens (20000 in the "
    "messages, 64 in the completion). Please reduce the length of the messages or completion."
)
LARGE = [
    (400, {"object": "error", "message": VLLM, "type": "BadRequestError", "param": None, "code": 400}),
    (
        400,
        error(
            "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length "
            "is 8192 tokens and your request has 8150 input tokens (64 > 8192 - 8150).",
            param="max_tokens",
        ),
    ),
    (400, error("The decoder prompt (length 9000) is longer than the maximum model length of 8192.")),
    (400, error("The input (9000 tokens) is longer than the model's context length (8192 tokens).")),
    (400, error(code="context_length_exceeded", param="messages")),
    (400, error(code="string_above_max_length", param="prompt")),
    (400, error("prompt is too long: 210000 tokens > 200000 maximum")),
    (400, {"code": "InvalidParameter", "message": "Range of input length should be [1, 30720]"}),
    (400, error("The input token count (40000) exceeds the maximum number of tokens allowed (32768)")),
    (400, error("Total tokens of image and text exceed max message tokens")),
    (400, {"error": {"type": "exceed_context_size_error", "message": "no", "code": 400}}),
    (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "validation"}),
    (422, {"detail": [{"loc": ["body", "prompt"], "msg": "at most 800", "type": "string_too_long"}]}),
    (413, {}),
    (413, None),
    (414, None),
    (431, None),
    (400, error("Prompt exceeds 1024 tokens")),
    (422, {"detail": [{"loc": ["body", "x"], "msg": "String should have at most 4000 characters"}]}),
    (429, error("Request too large for x: Limit 30000, Requested 40000.", code="rate_limit_exceeded")),
]

OTHERS = [
    (401, error(code="invalid_api_key"), Meaning.KEY),
    (401, error("content filter"), Meaning.KEY),
    (403, error("no"), Meaning.KEY),
    (403, None, Meaning.KEY),
    (403, error("Your account is suspended: it violated our usage policies"), Meaning.KEY),
    (403, {"code": "permission_denied", "error": "Your account violates our usage policies"}, Meaning.KEY),
    (400, error("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT"), Meaning.KEY),
    (402, error(), Meaning.QUOTA),
    (429, error(code="content_filter"), Meaning.QUOTA),
    (400, error(code="billing_hard_limit_reached"), Meaning.QUOTA),
    (
        400,
        {"code": "Arrearage", "message": "Access denied, please make sure your account is fine"},
        Meaning.QUOTA,
    ),
    (403, error(code="AccountOverdueError"), Meaning.QUOTA),
    (404, error("The model `x` does not exist", code="model_not_found"), Meaning.REQUEST),
    (404, None, Meaning.REQUEST),
    (
        400,
        error(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            code="unsupported_parameter",
            param="max_tokens",
        ),
        Meaning.REQUEST,
    ),
    (
        400,
        error(
            "Unsupported value: 'temperature' does not support 0 with this model.",
            code="unsupported_value",
            param="temperature",
        ),
        Meaning.REQUEST,
    ),
    (
        400,
        error("max_tokens is too large: 100000. It supports at most 16384.", param="max_tokens"),
        Meaning.REQUEST,
    ),
    (400, error("response_format type is unavailable now", param="response_format"), Meaning.REQUEST),
    (
        422,
        {"detail": [{"loc": ["body", "image"], "msg": "Field required", "type": "missing"}]},
        Meaning.REQUEST,
    ),
    (400, error("no such thing"), Meaning.UNKNOWN),
    (422, {"detail": "no"}, Meaning.UNKNOWN),
    (400, None, Meaning.UNKNOWN),
    (500, error("content filter service is down"), Meaning.FAILED),
    (503, None, Meaning.FAILED),
    (200, {"error": {"code": 429, "message": "slow down"}}, Meaning.QUOTA),
    (200, {"error": {"code": 502, "message": "upstream"}}, Meaning.FAILED),
    (200, {"status": "error", "message": "CUDA out of memory"}, Meaning.REQUEST),
]


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        *((status, answer, Meaning.CONTENT) for status, answer in CONTENT),
        *((status, answer, Meaning.TOO_LARGE) for status, answer in LARGE),
        *OTHERS,
    ],
)
def test_the_meaning_of_an_error_answer(status: int, answer: Any, expected: Meaning) -> None:
    assert meaning(status, answer) is expected


def test_plain_text_is_read_and_a_page_of_html_is_not() -> None:
    assert meaning(400, None, "prompt was flagged by moderation") is Meaning.CONTENT
    assert meaning(400, None, "<html>flagged</html>") is Meaning.UNKNOWN


@pytest.mark.parametrize("echo", ["input", "prompt", "messages", "ctx", "revised_prompt", "content"])
def test_the_repeated_request_does_not_decide_the_meaning(echo: str) -> None:
    for words in ("invalid api key, quota", "content_policy_violation", "context length"):
        answer = {"detail": [{"msg": "no", "type": "value_error", echo: {"code": words, "message": words}}]}
        assert meaning(422, answer) is Meaning.UNKNOWN


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("At most 4 image(s) may be provided in one request.", 4),
        ("At most 1 image(s) may be provided in one prompt.", 1),
        ("Too many images. Maximum of 10 images allowed", 10),
        ("You may provide at most 5 images", 5),
        ("number of images exceeds 8.", 8),
        ("At most 0 image(s) may be provided in one prompt.", 0),
        ("Too many images: 12 > 8", 8),
        ("Number of images (12) exceeds the limit of 5", 5),
        ("Too many images in request. Max is 50.", 50),
        ("messages.0.content: too many images and documents: 101 + 0 > 100", 100),
        ("Requested 5 images but the model allows a maximum of 1 image", 1),
        ("You set image=1 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 3 image items", 1),
        ("Image exceeds 5 MB maximum: 7340032 bytes > 5242880 bytes", None),
        ("image is broken", None),
        ("failed to load image 3", None),
        ("", None),
    ],
)
def test_the_limit_of_images_is_read_from_the_message(text: str, limit: int | None) -> None:
    assert image_limit(text) == limit


@pytest.mark.parametrize(
    "code", ["content_filter", "safety", "PROHIBITED_CONTENT", "RECITATION", "refusal", "SPII"]
)
def test_finish_reasons_of_content_filters(code: str) -> None:
    assert is_content_code(code)


@pytest.mark.parametrize("code", ["stop", "length", "tool_calls", "", None, 7, "error", "abort"])
def test_other_finish_reasons_are_no_content_filter(code: object) -> None:
    assert not is_content_code(code)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "detail", "loc", "raw", "x"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(st.integers(100, 599), VALUES, st.text(max_size=30))
def test_no_answer_raises(status: int, answer: Any, body: str) -> None:
    assert meaning(status, answer, body) in Meaning


def test_the_part_of_an_answer_that_is_read_is_bounded() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = {"error": deep}
    wide = {"errors": [{"message": "m" * 10_000}] * 5000}
    assert read(deep).messages == []
    assert len(read(wide).messages) <= 300
    assert len("".join(read(wide).messages)) <= 300 * 4000
    text = json.dumps({"error": {"message": json.dumps({"error": {"code": "content_filter"}})}})
    assert meaning(400, json.loads(text)) is Meaning.CONTENT
