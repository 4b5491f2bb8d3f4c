"""Generated prompts, written as parquet in the schema of the LLM-I dataset.

Four files: `train`, `test` (text rows, `prompt` a string) and `train_mm`, `test_mm` (one input image each,
`prompt` a chat). Invariants: the same seed gives the same rows; no subject of a test file occurs in a
training file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from llmi.demo.prompts.pictures import draw_picture
from llmi.demo.prompts.topics import Split, Topic, ask, draw_image_num, draw_topic, required_tools
from llmi.tools import SOURCES, Source

FILES = ("train.parquet", "test.parquet", "train_mm.parquet", "test_mm.parquet")


@dataclass(frozen=True)
class Prompt:
    """One prompt. `text` holds `<image>` where the input image stands; `image` is its PNG, empty without
    one."""

    topic: Topic
    image_num: int
    text: str
    image: bytes = b""

    @property
    def question(self) -> str:
        """The text alone."""
        return self.text.replace("<image> ", "")


def prompts(seed: int, split: Split, *, pictures: bool) -> Iterator[Prompt]:
    """Endless prompts of one split, every kind of topic equally often, in random order."""
    random = Random(f"{seed}:{split}:{pictures}")
    kinds: tuple[Source, ...] = ("edit", "diffusion") if pictures else SOURCES
    while True:
        for kind in random.sample(kinds, len(kinds)):
            topic = draw_topic(random, kind, picture=pictures)
            while topic.split != split:
                topic = draw_topic(random, kind, picture=pictures)
            image_num = draw_image_num(random, topic)
            image = draw_picture(topic, random.getrandbits(32)) if pictures else b""
            yield Prompt(topic, image_num, ask(random, topic, image_num), image)


def write_dataset(folder: str | Path, *, seed: int, train: int = 1024, test: int = 64) -> dict[str, Path]:
    """Write the four files into `folder`, made if absent; `train` and `test` rows each. Returns name ->
    path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chat = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    images = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    info = pa.struct(
        [
            ("image_num", pa.int64()),
            ("tools", pa.list_(pa.string())),
            ("question", pa.string()),
            ("split", pa.string()),
        ]
    )
    written = {}
    for split, count in (("train", train), ("test", test)):
        for pictures in (False, True):
            schema = pa.schema(
                [
                    ("prompt", chat if pictures else pa.string()),
                    ("images", images),
                    ("modality", pa.string()),
                    ("data_source", pa.string()),
                    ("extra_info", info),
                ]
            )
            source = prompts(seed, "train" if split == "train" else "test", pictures=pictures)
            rows = [_record(next(source), split) for _ in range(count)]
            name = f"{split}_mm" if pictures else split
            written[name] = folder / f"{name}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), written[name])
    return written


def _record(prompt: Prompt, split: str) -> dict[str, Any]:
    multimodal = bool(prompt.image)
    return {
        "prompt": [{"role": "user", "content": prompt.text}] if multimodal else prompt.text,
        "images": [{"bytes": prompt.image, "path": None}] if multimodal else None,
        "modality": "multimodal" if multimodal else "text",
        "data_source": "interleaved_mm" if multimodal else "interleaved",
        "extra_info": {
            "image_num": prompt.image_num,
            "tools": required_tools(prompt.topic, prompt.image_num),
            "question": prompt.question,
            "split": split,
        },
    }
