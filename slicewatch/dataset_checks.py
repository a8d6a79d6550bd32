"""The manifest of a data set, and the checks on it: what would make a measured quality a lie.

The manifest is a table (CSV) with one row an example. It holds digests in place of patient ids.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, UnidentifiedImageError

from slicewatch.annotations import yolo_line
from slicewatch.dataset import REPEATED, TRAIN, UNANNOTATED, VALIDATION, Example, Reject
from slicewatch.pixels import PADDING

MAX_LOST_SHARE = 0.1
"""Above this share of lost sources a data set misleads: what was lost may not be lost by chance."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One example of a data set.

    Attributes:
        order: place of the slice in its series.
        picture_sha256: of the decoded gray values; empty when the picture does not decode.
        classes: class indices of its boxes, joined by blanks.
    """

    name: str
    split: str
    patient: str
    study: str
    series: str
    order: str
    modality: str
    source: str
    picture_sha256: str
    classes: str


FIELDS = tuple(field.name for field in fields(Entry))


def entry_of(example: Example) -> Entry:
    """The manifest's row of a rendered example."""
    digest, _ = picture_digest(example.png)
    return Entry(
        example.name,
        example.split,
        example.patient,
        example.study,
        example.series,
        str(example.order),
        example.modality,
        example.source,
        digest,
        " ".join(line.split()[0] for line in example.label_text.splitlines()),
    )


def picture_digest(data: bytes) -> tuple[str, bool]:
    """SHA-256 of a picture's gray values, and whether more than margins and one gray is there.

    Raises:
        ValueError: the picture does not decode.
    """
    try:
        gray = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError("the picture does not decode") from error
    shown = gray[gray != PADDING]
    varied = bool(shown.size and shown.min() != shown.max())
    return hashlib.sha256(gray.tobytes()).hexdigest(), varied


def manifest_text(entries: Iterable[Entry]) -> str:
    """The manifest as CSV, sorted by name."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for entry in sorted(entries, key=lambda item: item.name):
        writer.writerow([getattr(entry, name) for name in FIELDS])
    return out.getvalue()


def read_manifest(text: str) -> list[Entry]:
    """Parse `manifest_text`'s output.

    Raises:
        ValueError: a column is missing.
    """
    reader = csv.DictReader(io.StringIO(text))
    missing = set(FIELDS) - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"the manifest lacks the columns {', '.join(sorted(missing))}")
    return [Entry(**{name: row[name] or "" for name in FIELDS}) for row in reader]


def yaml_text(classes: Sequence[str]) -> str:
    """The description of a data set as Ultralytics reads it, paths relative to the data set."""
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(classes))
    return f"train: images/train\nval: images/val\nnames:\n{names}"


def check_losses(rejects: Iterable[Reject], sources: int) -> list[Reject]:
    """A problem when too many sources were lost.

    One that nobody annotated, or that came twice, is no loss.
    """
    lost = {
        reject.source
        for reject in rejects
        if reject.reason != UNANNOTATED and not reject.reason.startswith(REPEATED)
    }
    if len(lost) <= MAX_LOST_SHARE * max(sources, 1):
        return []
    return [Reject("sources", f"{len(lost)} of {sources} were lost; see what was rejected")]


def check_label(text: str, classes: int) -> str | None:
    """What is wrong with a YOLO label file, or ``None``."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            label, x, y, width, height = yolo_line(line)
        except ValueError:
            return f"line {number} is not 'class x y width height'"
        if not (label.is_integer() and 0 <= label < classes):
            return f"line {number} has class {label:g}; the data set has 0 to {classes - 1}"
        slack = 1e-3
        inside = (
            0 < width <= 1 + slack
            and 0 < height <= 1 + slack
            and x - width / 2 >= -slack
            and x + width / 2 <= 1 + slack
            and y - height / 2 >= -slack
            and y + height / 2 <= 1 + slack
        )
        if not inside:
            return f"line {number} has an empty box, or one outside of the image"
    return None


def check(entries: Sequence[Entry], classes: Sequence[str]) -> list[Reject]:
    """Problems that would make training or a measured quality mislead, by file and reason."""
    return [*check_splits(entries), *_empty_classes(entries, classes)]


def check_splits(entries: Sequence[Entry]) -> list[Reject]:
    """Patients and pictures that are in two splits: then one split says nothing of the other."""
    return [*_patients_in_two_splits(entries), *_duplicates_across_splits(entries)]


def _patients_in_two_splits(entries: Sequence[Entry]) -> Iterable[Reject]:
    """By patient, and by study: one study with two patient ids is of one patient all the same."""
    for kind in ("patient", "study"):
        seen: dict[str, dict[str, Entry]] = defaultdict(dict)
        for entry in entries:
            if key := getattr(entry, kind):
                seen[key].setdefault(entry.split, entry)
        for key, members in seen.items():
            first, *others = members.values()
            # The patient has told it already where both have one.
            if others and (kind == "patient" or first.patient != others[0].patient):
                yield Reject(
                    _file(others[0]), f"{kind} {key} is in another split too ({_file(first)})"
                )


def _file(entry: Entry) -> str:
    return f"{entry.name} ({entry.source})" if entry.source else entry.name


def _duplicates_across_splits(entries: Sequence[Entry]) -> Iterable[Reject]:
    seen: dict[str, Entry] = {}
    for entry in entries:
        if not entry.picture_sha256:
            continue
        first = seen.setdefault(entry.picture_sha256, entry)
        if first.split != entry.split:
            yield Reject(_file(entry), f"same picture as {_file(first)} of split {first.split}")


def _empty_classes(entries: Sequence[Entry], classes: Sequence[str]) -> Iterable[Reject]:
    for split in (TRAIN, VALIDATION):
        members = [entry for entry in entries if entry.split == split]
        if not members:
            yield Reject(f"split {split}", "has no examples")
            continue
        present = {int(word) for entry in members for word in entry.classes.split()}
        for index, name in enumerate(classes):
            if index not in present:
                yield Reject(f"split {split}", f"has no box of class {name}")
