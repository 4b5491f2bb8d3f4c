"""Batches of text alone for Qwen2.5-VL (verl 0.9.1 with transformers 5).

verl runs the vision tower on an empty image where a batch has none, so that all ranks run it. It calls `mean`
of what the tower returns, which in transformers 5 is an object with the tensor in it: every such batch fails,
also in the published recipe, which mixes rows with and without images.
`tests/unit/policy/train/test_vision_text.py` fails when verl reads the object; then this module can go.

Importing it replaces the function. verl's workers import it through `actor_rollout_ref.model.external_lib`.
"""

from __future__ import annotations

from typing import Any

from verl.models.transformers import qwen2_vl
from verl.utils.transformers_compat import unpack_visual_output

_embed = qwen2_vl._get_input_embeds


class _With:
    """An object with one attribute replaced."""

    def __init__(self, of: Any, **replaced: Any):
        self._of = of
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


class _Tower(_With):
    """A vision tower that returns the tensor."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return unpack_visual_output(self._of(*arguments, **options))[0]


def get_input_embeds(model: Any, *arguments: Any, **options: Any) -> Any:
    """verl's `_get_input_embeds`, with a tower that returns the tensor."""
    return _embed(_With(model, visual=_Tower(model.visual)), *arguments, **options)


def install() -> None:
    """Replace verl's function in this process."""
    qwen2_vl._get_input_embeds = get_input_embeds


install()
