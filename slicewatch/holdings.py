"""What the archive holds of a study, a series or an instance: originals, and results beside them.

Originals are a listing of ``incoming``; results (reports, presentation states) lie with the reviews
that they are of, in series of their own, and are held like any other object.

Of two objects with one SOP instance UID (`slicewatch.arrival` keeps both) the one that came first
is the instance; the other is for the integrity checks, since an answer cannot hold both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from slicewatch.reporting import stored, uids
from slicewatch.storage import INCOMING, REVIEWS, BlobMissing, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WORKERS = 8
_BYTES_AHEAD = 64 << 20
BEGINNING = 32 << 10
"""Bytes within which the pixel data of most images begins."""


class NotHeld(KeyError):
    """The archive has nothing of the study, series or instance."""


@dataclass(frozen=True, slots=True)
class Held:
    """One object: its UIDs, the size of its file, and what was noted of it at its arrival.

    `result` is the name in ``reviews`` of what was made here; empty for an original.
    """

    study: str
    series: str
    instance: str
    size: int
    metadata: Mapping[str, str]
    result: str = ""

    @property
    def blob(self) -> str:
        """An original's name in ``incoming``."""
        return f"{self.study}/{self.series}/{self.instance}.dcm"


def listing(
    storage: Storage, study: str, series: str | None = None, instance: str | None = None
) -> Iterator[Held]:
    """The objects of a study, of one series, or one instance: originals by series and instance UID,
    then results.

    The UIDs have been checked: they become a path.
    """
    yield from originals(storage, study, series, instance)
    if series is None or uids.is_ours(study, series):
        for one in results(storage, study):
            if series in (None, one.series) and instance in (None, one.instance):
                yield one


def originals(
    storage: Storage, study: str, series: str | None = None, instance: str | None = None
) -> Iterator[Held]:
    """`listing` without what was made here."""
    prefix = "/".join(part for part in (study, series or "", instance or "") if part)
    if series is not None and instance is not None:
        found = storage.info(INCOMING, f"{prefix}.dcm")
        if found is not None:
            yield Held(study, series, instance, found.size, found.metadata)
        return
    for blob in storage.listing(INCOMING, f"{prefix}/"):
        _, in_series, name = blob.name.split("/")
        if "~" not in name:
            sop = name.removesuffix(".dcm")
            yield Held(study, in_series, sop, blob.size, blob.metadata)


def results(storage: Storage, study: str) -> Iterator[Held]:
    """What was made here of the study's reviews, the earliest generation first."""
    for blob in stored.results(storage, study):
        series, instance = blob.metadata[stored.SERIES], blob.metadata[stored.INSTANCE]
        yield Held(study, series, instance, blob.size, blob.metadata, blob.name)


def held(
    storage: Storage, study: str, series: str | None = None, instance: str | None = None
) -> list[Held]:
    """`listing` as a list that is not empty. Raises `NotHeld`."""
    found = list(listing(storage, study, series, instance))
    if not found:
        raise NotHeld(study)
    return found


def read(storage: Storage, one: Held) -> bytes:
    """The object's bytes. Raises `NotHeld`."""
    try:
        if one.result:
            return storage.read(REVIEWS, one.result)
        return storage.read(INCOMING, one.blob)
    except BlobMissing:
        raise NotHeld(one.study) from None


def read_instance(storage: Storage, study: str, series: str, instance: str) -> bytes:
    """The bytes of one instance: of an original without asking first whether it is there.

    Raises `NotHeld`.
    """
    try:
        return storage.read(INCOMING, f"{study}/{series}/{instance}.dcm")
    except BlobMissing:
        (one,) = held(storage, study, series, instance)
        return read(storage, one)


def map_beginnings[T](
    storage: Storage, objects: Sequence[Held], use: Callable[[Held, bytes], T]
) -> list[T]:
    """`use` applied to each object and its first `BEGINNING` bytes.

    Raises:
        NotHeld: one is gone meanwhile.
    """

    def work(one: Held) -> T:
        container, name = (REVIEWS, one.result) if one.result else (INCOMING, one.blob)
        try:
            return use(one, storage.read_from(container, name, 0, BEGINNING))
        except BlobMissing:
            raise NotHeld(one.study) from None

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="retrieve") as pool:
        return list(pool.map(work, objects))


def map_objects[T](
    storage: Storage, objects: Sequence[Held], use: Callable[[Held, bytes], T]
) -> Iterator[T]:
    """`use` applied to each object and its bytes, in order, several read ahead at a time.

    An object's bytes are released once it was used; some 64 MiB are held beside the results.

    Raises:
        NotHeld: one is gone meanwhile.
    """

    def work(one: Held) -> T:
        return use(one, read(storage, one))

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="retrieve") as pool:
        waiting = iter(objects)
        while batch := _batch(waiting):
            yield from pool.map(work, batch)


def _batch(objects: Iterator[Held]) -> list[Held]:
    """The next objects whose bytes may be held at once; one at least, where any is left."""
    batch: list[Held] = []
    size = 0
    for one in islice(objects, 4 * _WORKERS):
        batch.append(one)
        size += one.size
        if size > _BYTES_AHEAD:
            break
    return batch
