"""Verdicts from grades, and the reward of a score that has one."""

from __future__ import annotations

from policy.scoring import Score
from rewards.verdicts import ImageVerdict, TextVerdict


def text(prose: int, tags: int) -> TextVerdict:
    return TextVerdict(text=prose, image_tags=tags)


def image(quality: int, task: int, passage: int) -> ImageVerdict:
    return ImageVerdict(image_quality=quality, task_relevance=task, text_image_relevance=passage)


def value(score: Score) -> float:
    assert score.reward is not None
    return score.reward
