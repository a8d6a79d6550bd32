"""Studies to measure with: generated CT series of a hundred slices, as many as are asked for."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pydicom
from pydicom.uid import UID

from demo.scanner import Object
from training.phantom import generate_study

SERIES_SLICES = 100
_EXECUTABLE = b"MZ"
PREAMBLE_ISSUE = "executable-preamble"
"""The one thing that the integrity checks find in these studies."""


def make_study(
    folder: Path, pool: Path, name: str, slices: int, *, rows: int, columns: int
) -> list[Object]:
    """Write a study of `slices` CT slices to `folder`; the same arguments give the same UIDs.

    Every second series has a mass. The first slice has a preamble like a program's, so that the
    default policy flags the study whatever the model finds, and there is an item to wait for.

    Args:
        pool: where the generated series are kept; studies with one pool share their pixels.
    """
    folder.mkdir(parents=True)
    # UUID-derived form (PS3.5 section B.2), of half a UUID: series and instance numbers follow it.
    digest = hashlib.sha256(f"slicewatch-benchmark/{name}/{slices}".encode()).digest()
    study_uid = f"2.25.{int.from_bytes(digest[:8])}"
    objects: list[Object] = []
    for number, first in enumerate(range(0, slices, SERIES_SLICES), start=1):
        series_uid = f"{study_uid}.{number}"
        planes = _series(pool / str(number), number, rows, columns)[: slices - first]
        for index, plane in enumerate(planes, start=1):
            sop_uid = f"{series_uid}.{index}"
            path = folder / f"{number:03d}-{index:03d}.dcm"
            path.write_bytes(_renamed(plane, study_uid, series_uid, sop_uid, number))
            objects.append(Object(path, study_uid, sop_uid))
    marked = objects[0].path
    marked.write_bytes(_EXECUTABLE + marked.read_bytes()[len(_EXECUTABLE) :])
    return objects


def _series(folder: Path, number: int, rows: int, columns: int) -> list[Path]:
    if folder.exists():
        return sorted(folder.iterdir())
    return generate_study(
        folder,
        seed=number,
        lesions=bool(number % 2),
        slices=SERIES_SLICES,
        rows=rows,
        columns=columns,
    )


def _renamed(path: Path, study: str, series: str, sop: str, number: int) -> bytes:
    """The file as an instance of another study: one study, one patient, several series."""
    dataset = pydicom.dcmread(path)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(study), UID(series)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop)
    dataset.PatientID, dataset.SeriesNumber = "BENCHMARK", number
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
