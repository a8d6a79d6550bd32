"""``python -m training prepare``: sources in, a checked YOLO data set out."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from slicewatch.dataset import REPEATED, Example
from slicewatch.dataset_checks import (
    Entry,
    check,
    check_losses,
    entry_of,
    manifest_text,
    picture_digest,
    yaml_text,
)
from slicewatch.dataset_planning import LabelMap
from training.domains import Domain
from training.sources import (
    BadSource,
    Findings,
    dicom_folder,
    masked_pictures,
    normal_brains,
    phantoms,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Outcome of a preparation; `problems` non-empty means that the data set would mislead."""

    folder: Path
    counts: Counter[tuple[str, str]]
    rejects: int
    problems: tuple[str, ...]


def prepare(
    domain: Domain,
    out: Path,
    *,
    dicom: tuple[Path, ...] = (),
    masked: tuple[Path, ...] = (),
    generated: int = 0,
    normal: int = 0,
    validation_share: float = 0.2,
    labels: tuple[tuple[str, str], ...] = (),
) -> Prepared:
    """Write a data set to `out`: images, labels, dataset.yaml, manifest.csv, rejected.json.

    Args:
        domain: classes, input size and intensities.
        out: is emptied when an earlier preparation made it.
        dicom: folders of DICOM with RTSTRUCT, SEG or YOLO label files.
        masked: folders of pictures with masks.
        generated: number of generated studies to mix into the training split.
        normal: number of slices of a normal brain to mix into the training split.
        validation_share: of the patients, by hash.
        labels: (pattern of a structure's name, class), before the domain's own.

    Raises:
        BadSource: a folder is not there or of no use, or `out` holds something else.
    """
    _clear(out)
    findings = Findings()
    entries: list[Entry] = []
    written: set[str] = set()
    known = replace(domain, labels=LabelMap((*labels, *domain.labels.rules)))
    sources = _examples(known, findings, dicom, masked, validation_share)
    if generated:
        sources = chain(sources, phantoms(domain, generated, findings))
    if normal:
        sources = chain(sources, normal_brains(domain, normal, findings))
    for example in sources:
        _, shows_something = picture_digest(example.png)
        if not shows_something and not example.boxes:
            findings.drop(f"{example.source} ({example.name})", "the frame is of one gray value")
            continue
        if example.name in written:
            findings.drop(f"{example.source} ({example.name})", f"{REPEATED} in a folder before")
            continue
        written.add(example.name)
        _write(out, example)
        entries.append(entry_of(example))
    found = check(entries, domain.classes) + check_losses(findings.rejects, findings.sources)
    problems = [f"{problem.source}: {problem.reason}" for problem in found]
    (out / "manifest.csv").write_text(manifest_text(entries), "utf-8")
    (out / "rejected.json").write_text(_report(findings, problems), "utf-8")
    (out / "dataset.yaml").write_text(yaml_text(domain.classes), "utf-8")
    counts = Counter((e.split, "positive" if e.classes else "negative") for e in entries)
    return Prepared(out, counts, len(findings.rejects), tuple(problems))


def _examples(
    domain: Domain,
    findings: Findings,
    dicom: tuple[Path, ...],
    masked: tuple[Path, ...],
    validation_share: float,
) -> Iterator[Example]:
    for folder in (*dicom, *masked):
        if not folder.is_dir():
            raise BadSource(f"{folder} is no folder")
    for folder in dicom:
        yield from dicom_folder(folder, domain, findings, validation_share=validation_share)
    for folder in masked:
        yield from masked_pictures(folder, domain, findings, validation_share=validation_share)


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / "manifest.csv").is_file():
            raise BadSource(f"{out} is not empty and holds no data set; choose another folder")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _write(out: Path, example: Example) -> None:
    picture = out / "images" / example.split / f"{example.name}.png"
    label = out / "labels" / example.split / f"{example.name}.txt"
    for path in (picture, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(example.png)
    label.write_text(example.label_text, "utf-8")


def _report(findings: Findings, problems: list[str]) -> str:
    return json.dumps(
        {
            "rejected": [item.to_json() for item in findings.rejects],
            "remarks": [item.to_json() for item in findings.remarks],
            "problems": problems,
        },
        indent=1,
    )
