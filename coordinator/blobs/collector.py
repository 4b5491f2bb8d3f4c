"""Garbage collection of a blob store: removes old blobs that no run and no evaluation references.

Invariants:
- Nothing is removed unless the references of every user of the store were read.
- The store is listed before the references are read, so that blobs stored meanwhile are not removed.
- A referenced blob stays.
- A blob younger than `keep_s` stays, since the outcome that references it may not be recorded yet.
- All else is garbage, half-written files too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from coordinator.blobs.records import Records
from coordinator.console.stages import Step
from workers.errors import ConfigError
from workers.storage.listing import BlobListing, ListedBlob


@dataclass(frozen=True)
class Classified:
    """All stored blobs, each once: referenced (`named`), `young`, or `garbage`."""

    named: tuple[ListedBlob, ...]
    young: tuple[ListedBlob, ...]
    garbage: tuple[ListedBlob, ...]


def classify(stored: Iterable[ListedBlob], names: Set[str], *, now: float, keep_s: float) -> Classified:
    """Classify `stored`. `names`: every referenced blob. `now`: Unix seconds. `keep_s`: least age of
    garbage."""
    named, young, garbage = [], [], []
    for one in stored:
        if one.sha256 in names and not one.part:
            named.append(one)
        elif now - one.modified < keep_s:
            young.append(one)
        else:
            garbage.append(one)
    return Classified(tuple(named), tuple(young), tuple(garbage))


@dataclass(frozen=True)
class Collected:
    """The result: counts of files, and the bytes of the garbage.

    `users`: runs and evaluations that were read. `named`: referenced blobs. `removed`: 0 for a dry run, and
    less than `garbage` when some blobs were stored again meanwhile.
    """

    url: str
    users: tuple[str, ...]
    named: int
    young: int
    garbage: int
    garbage_bytes: int
    removed: int


def collect(
    places: Sequence[str],
    *,
    keep_s: float,
    forget: Sequence[str] = (),
    dry_run: bool = False,
    step: Step = lambda name, share, detail: None,
) -> Collected:
    """Remove the garbage of the store that `places` (folders of runs, folders or URLs of evaluations) use.

    `keep_s`: least age of garbage, in seconds. `forget`: users of the store that no longer exist. `step`:
    called with the running step. Raises `ConfigError` for a place that is neither, for places with different
    stores, and when a user of the store cannot be read; `InfrastructureFault` when a run has not ended and
    its Redis does not answer (nothing is removed then), and when the store fails.
    """
    stores = {Records(place).store for place in places}
    if len(stores) != 1:
        raise ConfigError(f"these have different image stores: {', '.join(sorted(stores))}")
    listing = BlobListing(stores.pop())
    listed = {user.place: user.host for user in listing.users()}
    if unknown := set(forget) - set(listed):
        raise ConfigError(f"--forget: {unknown.pop()} is not on the list of {listing.url}")
    users = sorted({*places, *listed} - set(forget))
    step("listing the images", None, "")
    stored = listing.blobs()
    names: set[str] = set()
    for number, user in enumerate(users):
        step("reading the references", number / len(users), user)
        try:
            names |= Records(user).references(listing.url)
        except (ConfigError, OSError) as error:
            raise ConfigError(
                f"{user} (of {listed.get(user, 'this machine')}) keeps images in {listing.url}, and cannot "
                f"be read here: {error}; nothing is removed. If it was deleted, add --forget {user}"
            ) from error
    found = classify(stored, names, now=time.time(), keep_s=keep_s)
    removed = 0
    if not dry_run:
        for place in forget:
            listing.unregister_user(place)
        for number, one in enumerate(found.garbage):
            step("removing", number / len(found.garbage), f"{number:,} of {len(found.garbage):,}")
            removed += listing.remove(one)
    return Collected(
        url=listing.url,
        users=tuple(users),
        named=len(found.named),
        young=len(found.young),
        garbage=len(found.garbage),
        garbage_bytes=sum(one.size for one in found.garbage),
        removed=removed,
    )
