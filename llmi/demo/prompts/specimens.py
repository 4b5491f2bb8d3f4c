"""Documents written by rule, correct or with deliberate errors: the training data of the tiny policy.

Invariants: tags are grammatical nearly always, and chart code runs; how often the number of images and the
tools are right is set by `Flaws`, so that training has something to improve.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from llmi.demo.prompts.topics import (
    ANIMALS,
    ANY,
    CHANGES,
    CITIES,
    FREE,
    METRICS,
    NONE,
    PLACES,
    Topic,
    article,
)
from llmi.tools import SOURCES, Source

MAX_IMAGES = 4
STYLES = ("watercolor", "oil", "pixel", "charcoal", "neon", "pastel")

_SENTENCES: dict[Source, tuple[str, ...]] = {
    "search": (
        "Few sights are as famous as {it}.",
        "Visitors come for {it} all year round.",
        "Walk slowly and you will see {it} best.",
        "Much is told about {it}, and most of it is true.",
        "The view is calm and wide.",
        "Old stone keeps its stories.",
        "Come early, before the crowds.",
    ),
    "diffusion": (
        "Once there was {it}, and nobody knew why.",
        "Every night {it} waited for the moon.",
        "This is the tale of {it}.",
        "Nobody had ever seen {it} before.",
        "The wind grew quiet and listened.",
        "Then a small light appeared far away.",
        "In the end, all was well again.",
    ),
    "code": (
        "This report looks at {it}.",
        "The figures for {it} changed month by month.",
        "Three numbers sum up {it}.",
        "Experts expected less from {it}.",
        "The trend is easy to see.",
        "One value stands out from the rest.",
        "Next year will tell us more.",
    ),
    "edit": (
        "Here is {it}, as it was first seen.",
        "One scene can tell two stories: {it}.",
        "Look at {it} once, and then again.",
        "The place is the same, the mood of {it} is not.",
        "Only the light has changed.",
        "A season makes all the difference.",
        "Compare the two and choose your own.",
    ),
}


@dataclass(frozen=True)
class Flaws:
    """How often something is wrong: the number of images, the tool of a tag, its subject, an edit's index."""

    count: float = 0.48
    tool: float = 0.45
    subject: float = 0.12
    index: float = 0.08


PERFECT = Flaws(0.0, 0.0, 0.0, 0.0)


def write(random: Random, topic: Topic, image_num: int, flaws: Flaws) -> str:
    """A short document that answers a prompt about `topic`."""
    count = _count(random, image_num, flaws)
    inputs = 1 if topic.picture else 0
    lines = [_sentence(random, topic, flaws)]
    if count == 0:
        lines.append(_sentence(random, topic, flaws))
    for index, right in enumerate(topic.tools(count)):
        others = [tool for tool in SOURCES if tool != right and (tool != "edit" or inputs + index > 0)]
        tool = random.choice(others) if random.random() < flaws.tool else right
        lines.append(_tag(random, tool, topic, inputs + index, flaws))
        if random.random() < 0.7 or index == count - 1:
            lines.append(_sentence(random, topic, flaws))
    return "\n".join(lines)


def _count(random: Random, image_num: int, flaws: Flaws) -> int:
    if image_num == FREE:
        return random.choice((0, 1, 2))
    right = {NONE: [0], ANY: [1, 2]}.get(image_num, [image_num])
    if random.random() < flaws.count:
        if image_num == ANY:
            return 0
        return random.choice([count for count in range(MAX_IMAGES + 1) if count not in right])
    return random.choice(right)


def _subject(random: Random, topic: Topic, flaws: Flaws) -> str:
    if random.random() >= flaws.subject:
        return topic.subject
    return random.choice(
        (
            f"landmarks in {random.choice(CITIES)}",
            f"{article(random.choice(ANIMALS))} in {article(random.choice(PLACES))}",
            f"{random.choice(METRICS)} in {random.choice(CITIES)}",
        )
    )


def _sentence(random: Random, topic: Topic, flaws: Flaws) -> str:
    return random.choice(_SENTENCES[topic.kind]).format(it=_subject(random, topic, flaws))


def _tag(random: Random, tool: Source, topic: Topic, before: int, flaws: Flaws) -> str:
    """`before`: the number of earlier pictures, which an edit may refer to."""
    subject = _subject(random, topic, flaws)
    params: dict[str, str | int]
    if tool == "search":
        params = {"query": f"photos of {subject}"}
    elif tool == "diffusion":
        params = {"prompt": f"{random.choice(STYLES)} painting of {subject}"}
    elif tool == "code":
        params = {"code": chart(random, subject)}
    else:
        change = topic.change or random.choice(CHANGES)
        index = before if random.random() < flaws.index else random.choice((0, 0, 0, before - 1))
        params = {"img_index": index, "prompt": f"the same picture changed to {change}"}
        subject = f"{subject}, {change}"
    return f"<imgen>{ {'source': tool, 'description': subject, 'params': params}!r}</imgen>"


def chart(random: Random, title: str) -> str:
    """A few lines of matplotlib that draw one figure."""
    first, second, third = (random.randint(1, 9) for _ in range(3))
    values = f"[{first}, {second}, {third}]"
    draw = random.choice(
        (
            f"plt.bar([1, 2, 3], {values})",
            f"plt.plot([1, 2, 3], {values})",
            f"plt.scatter([1, 2, 3], {values})",
            f"plt.pie({values})",
            f"x = np.array({values})\nplt.barh([1, 2, 3], x)",
            f"sns.lineplot(x=[1, 2, 3], y={values})",
        )
    )
    return f'{draw}\nplt.title("{title}")'
