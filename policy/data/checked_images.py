"""Input images after validation (`workers.images`), cached so that each is decoded once.

Invariants: a cached image passed the current validation, because the key covers the image, the limits and the
version of the decoders; a cache that cannot be used costs time only.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import PIL
import tenacity
from fsspec.implementations.local import LocalFileSystem

from policy.data.files import shown
from policy.data.input_images import InputImage
from workers import images, pixels
from workers.errors import Cause, ConfigError, InfrastructureFault
from workers.messages import BlobRef
from workers.sandbox import decoders
from workers.storage.atomic import write
from workers.storage.blobs import BlobStore
from workers.storage.cache import cache_folder

logger = logging.getLogger(__name__)
FOLDER = "inputs"  # in the cache folder
TRIES = 3
HINT = "replace it by a PNG, JPEG, WebP, GIF or BMP that shows something"
Progress = Callable[[int, int], None]  # (checked, total)


class CheckedImages:
    """Blocking and thread-safe."""

    def __init__(self, folder: Path | None = None):
        """`folder`: of the cache; by default below the folder of LLMI_CACHE."""
        self._folder = folder or cache_folder() / FOLDER
        self._fs = LocalFileSystem()
        self._usable = True

    def get(self, image: InputImage) -> bytes:
        """The image, decoded, cleaned and encoded again.

        Raises `ConfigError` for data that is no image, `InfrastructureFault` when the jail does not work.
        """
        data = image.read()
        key = hashlib.sha256(f"{PIL.__version__} {pixels.DEFAULT_LIMITS} ".encode() + data).hexdigest()
        cached = self._load(key)
        if cached is not None:
            return cached
        try:
            clean = _validate(data)
        except InfrastructureFault as fault:
            if fault.cause is not Cause.BAD_ANSWER:
                raise
            raise ConfigError(f"{image.where}: {shown(fault.detail)}; {HINT}") from fault
        self._save(key, clean)
        return clean

    def _entry(self, key: str) -> Path:
        return self._folder / "index" / key[:2] / f"{key}.json"

    def _load(self, key: str) -> bytes | None:
        try:
            ref = BlobRef.model_validate_json(self._entry(key).read_bytes())
            return BlobStore(str(self._folder)).get(ref)
        except (OSError, ValueError, InfrastructureFault):  # missing or damaged
            return None

    def _save(self, key: str, clean: bytes) -> None:
        if not self._usable:
            return
        try:
            ref = BlobStore(str(self._folder)).put(clean)
            write(self._fs, str(self._entry(key)), ref.model_dump_json().encode())
        except (OSError, InfrastructureFault) as error:
            self._usable = False
            logger.warning("%s: checked images are not cached: %s", self._folder, error)


@tenacity.retry(
    retry=tenacity.retry_if_exception(
        lambda error: isinstance(error, InfrastructureFault) and error.cause is not Cause.BAD_ANSWER
    ),
    stop=tenacity.stop_after_attempt(TRIES),
    wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
    reraise=True,
)
def _validate(data: bytes) -> bytes:
    return images.checked(data)


def check(inputs: Sequence[InputImage], progress: Progress | None = None) -> list[str]:
    """Check images, several at a time, and return the problems in order.

    `progress` is called from this thread. Raises `InfrastructureFault` when the jail does not work.
    """
    checked, problems = CheckedImages(), dict[int, str]()
    pool = ThreadPoolExecutor(
        min(decoders.AT_ONCE, len(os.sched_getaffinity(0))), thread_name_prefix="check-images"
    )
    try:
        waiting = {pool.submit(_problem, checked, image): at for at, image in enumerate(inputs)}
        for done, future in enumerate(as_completed(waiting), start=1):
            if problem := future.result():
                problems[waiting[future]] = problem
            if progress is not None:
                progress(done, len(inputs))
    finally:
        pool.shutdown(cancel_futures=True)
        decoders.of_this_process().close()  # an idle decoder takes about 30 MB
    return [problems[at] for at in sorted(problems)]


def _problem(checked: CheckedImages, image: InputImage) -> str:
    try:
        checked.get(image)
    except ConfigError as error:
        return str(error)
    return ""
