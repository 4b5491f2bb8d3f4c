"""The two published rules: does the number of images fit what was asked, and were the required tools used?

Invariants: pure functions; every score lies in [0, 1]. Source: LLM-I (arXiv 2509.13642), where the tool
score is computed and then not used; here the `grounded` formula uses it.
"""

from __future__ import annotations

from collections.abc import Collection

NONE_ALLOWED = -1
FREE = 0
AT_LEAST_ONE = 99

TOOL_WEIGHTS = {"code": 0.4, "edit": 0.3, "search": 0.2, "diffusion": 0.1}
EXCESS_COST = 0.3


def count_score(image_num: int, images: int, split: str = "train") -> float:
    """The published r_num of a document with `images` images, when `image_num` were asked for.

    -1: none allowed; 0: free; 99: at least one; N: exactly N. On the split "test" a wrong number earns
    nothing; on any other, too few earn their share and each one too many costs 0.3. Raises ValueError for
    another negative number.
    """
    return count_score_of_attempts(image_num, images, images, split)


def count_score_of_attempts(image_num: int, images: int, attempts: int, split: str = "train") -> float:
    """r_num where some tags gave no image: only `images` fill what was asked, but every tag counts as one
    too many.

    With `images == attempts` this is the published r_num. It never falls when a failed tag becomes an image.
    """
    if not 0 <= images <= attempts:
        raise ValueError(f"{images} images out of {attempts} tags")
    if image_num < NONE_ALLOWED:
        raise ValueError(f"image_num is {image_num}; it must be -1, 0, 99 or a number of images")
    if image_num == NONE_ALLOWED:
        return 1.0 if attempts == 0 else 0.0
    if image_num == FREE:
        return 1.0
    if image_num == AT_LEAST_ONE:
        return 1.0 if images > 0 else 0.0
    if split == "test":
        return 1.0 if images == attempts == image_num else 0.0
    filled = min(images, image_num) / image_num
    return max(0.0, filled - EXCESS_COST * max(0, attempts - image_num))


def tool_score(
    required: Collection[str], attempted: Collection[str], succeeded: Collection[str]
) -> float | None:
    """How well the required tools were used: half for a valid tag of each, half for an image from each.

    Tools weigh code .4, edit .3, search .2, diffusion .1, relative to those required. None when none of the
    four is required. All three arguments hold names of tools; order and repetition do not matter.
    """
    wanted = [tool for tool in sorted(set(required)) if tool in TOOL_WEIGHTS]
    if not wanted:
        return None
    earned = sum(
        TOOL_WEIGHTS[tool] * (0.5 * (tool in attempted) + 0.5 * (tool in succeeded)) for tool in wanted
    )
    return min(1.0, earned / sum(TOOL_WEIGHTS[tool] for tool in wanted))
