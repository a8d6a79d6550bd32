"""``python -m training fetch``: a data set that was prepared as a Function, onto this machine."""

from __future__ import annotations

from pathlib import Path

from slicewatch.dataset_store import HEADS, TRAINING
from slicewatch.storage import BlobMissing, Storage
from training.progress import Progress
from training.sources import BadSource


def fetch(storage: Storage, dataset: str, out: Path) -> int:
    """Download a data set; ``python -m training train --data OUT`` reads it.

    Args:
        out: a folder that does not exist, or is empty.

    Returns:
        Number of files.

    Raises:
        BadSource: it is not prepared, changed meanwhile, or `out` holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise BadSource(f"{out} is not empty; choose another folder")
    prefix = f"{dataset}/"
    names = [blob.name for blob in storage.listing(TRAINING, prefix)]
    missing = [head for head in HEADS if prefix + head not in names]
    if missing:
        raise BadSource(
            f"the data set {dataset} is not prepared, or is being prepared: it lacks {missing[0]}"
        )
    before = storage.read(TRAINING, f"{prefix}manifest.json")
    for name in Progress(names, "fetching"):
        path = out / name.removeprefix(prefix)
        if not path.resolve().is_relative_to(out.resolve()):
            raise BadSource("a file of the data set would lie outside of the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.write_bytes(storage.read(TRAINING, name))
        except BlobMissing:
            raise BadSource("the data set was prepared anew meanwhile; fetch it again") from None
    if storage.read(TRAINING, f"{prefix}manifest.json") != before:
        raise BadSource("the data set was prepared anew meanwhile; fetch it again")
    return len(names)
