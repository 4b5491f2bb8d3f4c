"""The import hook for torchvision: free at start-up, and Qwen2.5-VL's processor can be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

pytest.importorskip("torchvision", reason="torchvision is not installed")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_installing_the_hook_and_looking_for_torchvision_load_nothing_heavy():
    code = (
        "import sys, importlib.util, policy.torchvision_schema as schema\n"
        "schema.install(); schema.install()\n"
        "assert importlib.util.find_spec('torchvision')\n"
        "print([name for name in ('torch', 'torchvision', 'pydantic') if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_torchvision_and_the_vision_processor_can_be_imported():
    code = (
        "import policy.torchvision_schema as schema\n"
        "schema.install()\n"
        "import torch, torchvision.transforms.v2\n"
        "from transformers import Qwen2VLVideoProcessor\n"
        "Qwen2VLVideoProcessor(); print(hasattr(torch.ops.torchvision, 'nms'))"
    )
    assert run(code) == "True"
