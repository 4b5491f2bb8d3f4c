"""The axes on which the judges grade a document: name, rubric, weight and judge, one entry each.

To add an axis, add an entry to `BUILT_IN`, or register an `Axis` in the entry-point group `llmi.axes`.

Invariants:
- `PUBLISHED` are the axes of LLM-I (arXiv 2509.13642). They are always graded. The formula `llmi` reads these
  and no others, so a new axis cannot change it. `grounded` reads every axis.
- A grade is an integer from 1 (worst) to 5 (best).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from workers.errors import ConfigError
from workers.extensions import loaders, unknown

GROUP = "llmi.axes"


@dataclass(frozen=True)
class Axis:
    """One axis.

    `about`: what it grades; the text judge grades `prose` and `tags` (as written), the image judge `images`.
    `rubric`: its paragraph in the judge's prompt, which begins with the quoted name.
    `weight`: in the mean of its judge's axes in `grounded`; `weight_vl`: that of a policy that reads images
    (None: the same). `by_rules`: how the rule-based judge grades it: a function of the judge's payload, and
    for `images` also of the `JobContext`. None: only models grade it.
    """

    name: str
    about: Literal["prose", "tags", "images"]
    rubric: str
    weight: float = 1.0
    weight_vl: float | None = None
    by_rules: Callable[..., int] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.rubric or not self.weight > 0:
            raise ConfigError(
                f"axis {self.name!r}: needs an identifier as name, a rubric, and a weight over 0"
            )

    @property
    def judge(self) -> Literal["text", "image"]:
        return "image" if self.about == "images" else "text"

    def weight_for(self, vl: bool) -> float:
        """The weight. `vl`: the policy reads images."""
        return self.weight if self.weight_vl is None or not vl else self.weight_vl


TEXT = Axis(
    name="text",
    about="prose",
    weight=1.4,
    weight_vl=1.5,
    rubric="""\
"text": the prose alone.
5: answers all that was asked, correct, clear, well ordered, complete without padding.
4: good, with a small gap or a clumsy passage.
3: usable, but thin, partly off the subject or badly ordered.
2: little of it helps; errors, repetition or a missing half.
1: no prose, nonsense, or nothing to do with the task.
Take off a point when the prose announces pictures ("here is an image of ..."), speaks about tags or \
tools, or wraps tags in code fences.
""",
)
IMAGE_TAGS = Axis(
    name="image_tags",
    about="tags",
    weight=0.6,
    weight_vl=0.5,
    rubric="""\
"image_tags": the tags, as the author wrote them. Judge each tag by four questions: Does the picture serve \
the task and the passage it stands in? Are description and parameters specific enough to make the right \
picture? Is it the right tool for this kind of picture? Does it stand where a reader would look for it? \
The weakest tag decides.
5: all four hold. 4: one holds only in part. 3: one fails. 2: two fail. 1: more fail, or the tag is broken.
A document without any tag gets 5 here; whether pictures were due is counted elsewhere.
""",
)
IMAGE_QUALITY = Axis(
    name="image_quality",
    about="images",
    rubric="""\
"image_quality": the pictures as pictures.
5: sharp, well composed, no flaw. 4: a small flaw. 3: plain flaws (artefacts, garbled lettering, \
overlapping labels) that leave it usable. 2: hard to use. 1: blank, broken or noise.
""",
)
TASK_RELEVANCE = Axis(
    name="task_relevance",
    about="images",
    rubric="""\
"task_relevance": what the pictures do for the task.
5: exactly what was asked, nothing missing. 4: fits, with a detail off. 3: on the subject, but generic or \
incomplete. 2: touches the subject only. 1: nothing to do with the task. If a given picture was to be \
changed or kept consistent, compare with it: an unwanted change costs as much as a missing one.
""",
)
TEXT_IMAGE_RELEVANCE = Axis(
    name="text_image_relevance",
    about="images",
    rubric="""\
"text_image_relevance": how pictures and the text around them agree.
5: each picture shows what its passage speaks of, in the right place. 4: one is slightly off. 3: the link \
is loose. 2: text and picture disagree in part. 1: they contradict each other or have no link.
""",
)
PUBLISHED = (TEXT, IMAGE_TAGS, IMAGE_QUALITY, TASK_RELEVANCE, TEXT_IMAGE_RELEVANCE)
BUILT_IN: tuple[Axis, ...] = PUBLISHED  # further axes: (*PUBLISHED, Axis(...))


def known() -> Mapping[str, Axis]:
    """Every axis by name: the built-in ones, then those of installed packages in alphabetical order.

    Raises `ConfigError` for an entry point that is no `Axis`, or has a name that exists.
    """
    found = {axis.name: axis for axis in BUILT_IN}
    for name, load in loaders("", "", GROUP).items():
        axis = load()
        if not isinstance(axis, Axis) or axis.name != name or name in found:
            raise ConfigError(f"entry point {name!r} of the group {GROUP}: must be an Axis with a new name")
        found[name] = axis
    return found


def named(names: Iterable[str]) -> tuple[Axis, ...]:
    """The axes with these names. Raises `ConfigError`, which lists the known ones, for an unknown name."""
    every = known()
    if missing := [name for name in names if name not in every]:
        raise ConfigError(unknown("judge axis", missing[0], every, GROUP))
    return tuple(every[name] for name in names)


def added(axes: Iterable[Axis], judge: Literal["text", "image"]) -> tuple[str, ...]:
    """The names of this judge's axes among `axes` that are not published."""
    return tuple(axis.name for axis in axes if axis.judge == judge and axis not in PUBLISHED)
