"""Topics of the generated prompts, and their wordings.

Invariants: a prompt names its subject, so that a document can be checked against it; the subject of a prompt,
not chance, decides whether it belongs to the training or the test split.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random
from typing import Literal

from llmi.tools import Source

CITIES = ("Paris", "Kyoto", "Cairo", "Lima", "Oslo", "Quito", "Delhi", "Rome")
ANIMALS = ("fox", "owl", "whale", "tiger", "panda", "heron", "otter", "lynx")
PLACES = ("forest", "harbor", "desert", "valley", "island", "glacier", "canyon", "village")
METRICS = ("sales", "rainfall", "traffic", "exports", "visitors", "prices")
CHANGES = ("night", "winter", "autumn", "sunset", "rain", "fog")
COLORS = ("red", "blue", "green", "yellow")
THINGS = ("house", "tree", "boat", "hill")

Split = Literal["train", "test"]
NONE, FREE, ANY = -1, 0, 99

_ASK = {
    NONE: ("Do not use any image.", "Text only, without images.", "No images, please."),
    FREE: ("Use images if they help.", "Images are optional."),
    ANY: ("Use images.", "Include at least one image.", "Add one or more images."),
    1: ("Use exactly 1 image.", "Include one image.", "I want 1 image."),
    2: ("Use exactly 2 images.", "Include two images.", "I want 2 images."),
    3: ("Use exactly 3 images.", "Include three images.", "I want 3 images."),
}
_VERBS = ("Write", "Please write", "Prepare", "Give me")


@dataclass(frozen=True)
class Topic:
    """`kind`: the tool that suits it. `subject`: the words a document about it should hold. `change`: for
    edits.

    `picture`: the color and the thing on the input image of a multimodal prompt, else None.
    """

    kind: Source
    subject: str
    change: str = ""
    picture: tuple[str, str] | None = None

    def tools(self, count: int) -> list[Source]:
        """The right tools for a document of `count` images, in order."""
        if self.kind == "edit" and self.picture is None:
            return ["diffusion" if index == 0 else "edit" for index in range(count)]
        return [self.kind] * count

    @property
    def phrase(self) -> str:
        """The requested document in words; `<image>` stands for the input image."""
        if self.picture is not None:
            if self.kind == "edit":
                return f"a page on this picture <image> and the same picture changed to {self.change}"
            return f"a story of this picture <image> with new paintings of {self.picture[1]}s"
        return {
            "search": f"photos of {self.subject}",
            "diffusion": f"a story of {self.subject}",
            "code": f"a report on {self.subject}",
            "edit": f"{self.subject}, then the same picture changed to {self.change}",
        }[self.kind]

    @property
    def split(self) -> Split:
        """Every eighth subject is kept for the test split."""
        return "train" if zlib.crc32(f"{self.kind}:{self.subject}:{self.change}".encode()) % 8 else "test"


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def draw_topic(random: Random, kind: Source, *, picture: bool = False) -> Topic:
    """A random topic of one kind; with an input image if `picture` (only edits and paintings have one)."""
    if picture:
        color, thing = random.choice(COLORS), random.choice(THINGS)
        change = random.choice(CHANGES) if kind == "edit" else ""
        return Topic(kind, f"a {color} {thing}", change, (color, thing))
    if kind == "search":
        return Topic(kind, f"landmarks in {random.choice(CITIES)}")
    if kind == "code":
        return Topic(kind, f"{random.choice(METRICS)} in {random.choice(CITIES)}")
    subject = f"{article(random.choice(ANIMALS))} in {article(random.choice(PLACES))}"
    return Topic(kind, subject, random.choice(CHANGES) if kind == "edit" else "")


def draw_image_num(random: Random, topic: Topic) -> int:
    """The requested number of images: -1 none, 0 free, 99 at least one, else that many."""
    if topic.kind == "edit" and topic.picture is None:
        return random.choice((2, 2, 3))
    return random.choices((NONE, FREE, ANY, 1, 2, 3), weights=(4, 1, 3, 5, 4, 3))[0]


def ask(random: Random, topic: Topic, image_num: int) -> str:
    """One prompt, in one of many wordings."""
    return f"{random.choice(_VERBS)} {topic.phrase}. {random.choice(_ASK[image_num])}"


def required_tools(topic: Topic, image_num: int) -> list[Source]:
    """The tools that a good answer uses; none where no image is required."""
    if image_num in (NONE, FREE):
        return []
    return list(dict.fromkeys(topic.tools(1 if image_num == ANY else image_num)))
