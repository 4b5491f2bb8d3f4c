"""The two published rules: the number of images, and the use of the required tools.

Invariants: pure functions; every score is in [0, 1]. Source: LLM-I (arXiv 2509.13642), which computes the
tool score and does not use it. `grounded` uses it without the half for an attempt.
"""

from __future__ import annotations

from collections.abc import Collection

from policy.tools import weights

NONE_ALLOWED = -1
FREE = 0
AT_LEAST_ONE = 99

EXCESS_COST = 0.3


def count_score(image_num: int, images: int, split: str = "train") -> float:
    """The published r_num of a document with `images` images.

    `image_num`: the requested number. -1: none allowed; 0: any; 99: at least one; N: exactly N. On the split
    "train", too few score their share and each one too many costs 0.3; on any other, a wrong number scores 0.
    Raises ValueError for another negative number.
    """
    if image_num < NONE_ALLOWED:
        raise ValueError(f"image_num is {image_num}; it must be -1, 0, 99 or a number of images")
    if image_num == NONE_ALLOWED:
        return 1.0 if images == 0 else 0.0
    if image_num == FREE:
        return 1.0
    if image_num == AT_LEAST_ONE:
        return 1.0 if images > 0 else 0.0
    if split != "train":
        return 1.0 if images == image_num else 0.0
    filled = min(images, image_num) / image_num
    return max(0.0, filled - EXCESS_COST * max(0, images - image_num))


def tool_score(
    required: Collection[str], attempted: Collection[str], succeeded: Collection[str]
) -> float | None:
    """The score of the required tools: half for a valid tag of each, half for an image from each.

    Tools have the weights of `policy.tools` (published: code .4, edit .3, search .2, diffusion .1), relative
    to the required tools. None when no known tool is required. The arguments are names of tools; order and
    repetition do not matter.
    """
    weight = weights()
    wanted = [tool for tool in sorted(set(required)) if tool in weight]
    if not wanted:
        return None
    earned = sum(weight[tool] * (0.5 * (tool in attempted) + 0.5 * (tool in succeeded)) for tool in wanted)
    return min(1.0, earned / sum(weight[tool] for tool in wanted))
