"""Data sets in YOLO layout as others write them: where pictures and labels are, what is what.

Known are ``images/SPLIT`` beside ``labels/SPLIT``, ``SPLIT/images`` beside ``SPLIT/labels``, both
with folders below, flat ``images`` and ``labels``, labels beside their pictures, and whatever a
``dataset.yaml`` or ``data.yaml`` names. A picture without a label file shows nothing, as
Ultralytics has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewatch.dataset_checks import yaml_text
from slicewatch.dataset_planning import LabelMap
from training.sources import BadSource, files_below

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
_DESCRIPTIONS = ("dataset.yaml", "data.yaml", "dataset.yml", "data.yml")
_ALIASES = {"val": ("val", "valid", "validation"), "valid": ("valid", "val", "validation")}
_SPLITS = ("train", "val", "valid", "validation", "test")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a split.

    Attributes:
        label: its label file; ``None``: there is none.
        group: folder below the split that it lies in, usually a patient's; empty: directly there.
    """

    path: Path
    label: Path | None
    group: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A data set in YOLO layout.

    Attributes:
        root: its folder.
        pictures: of the split.
        names: of the classes by index; empty: the data set does not say.
    """

    root: Path
    pictures: tuple[Picture, ...]
    names: tuple[str, ...]


def is_layout(data: Path) -> bool:
    """Whether `data` is a data set in YOLO layout; a folder of DICOM has no such parts."""
    if data.is_file():
        return data.suffix.lower() in {".yaml", ".yml"}
    if _description_of(data):
        return True
    folders = [data / "images", *(data / split / "images" for split in _SPLITS)]
    return any(folder.is_dir() and any(_pictures(folder)) for folder in folders)


def read_layout(data: Path, split: str) -> Layout:
    """Find the pictures of a split, their labels, and the names of the classes.

    Args:
        data: the data set's folder, or its YAML file.
        split: val and valid mean the same.

    Raises:
        BadSource: there is no such split, or it has no label file at all.
        ModuleNotFoundError: a description of others is there, and PyYAML is not.
    """
    root = data.parent if data.is_file() else data
    file = data if data.is_file() else _description_of(data)
    description = _read_description(file) if file else {}
    places = _named_places(root, description, split) or _usual_places(root, split)
    found = [picture for place in places for picture in _split_pictures(place)]
    if not found:
        here = ", ".join(name for name in _SPLITS if _usual_places(root, name)) or "none"
        raise BadSource(
            f"{root} holds no pictures of split {split}; splits here: {here}; choose with --split"
        )
    if all(picture.label is None for picture in found):
        raise BadSource(
            f"none of the {len(found)} pictures of split {split} has a label file; expected "
            f"{_label_paths(found[0].path)[0]} and so on (empty where nothing is there)"
        )
    return Layout(root, tuple(sorted(found, key=lambda one: one.path)), _names(description))


def class_of_each(names: Sequence[str], classes: Sequence[str], labels: LabelMap) -> list[str]:
    """For each name of the data set the model's class, or the name itself where it has none.

    Args:
        labels: decides where a name is not that of a class, letter case and punctuation aside.
    """
    plain = {_plain(label): label for label in classes}
    return [plain.get(_plain(name)) or labels.label(name) or name for name in names]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _description_of(folder: Path) -> Path | None:
    return next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)


def _read_description(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSource(f"{file} is no readable text") from error
    if (ours := _our_names(text)) is not None:
        return {"names": ours}

    import yaml  # type: ignore[import-not-found, import-untyped, unused-ignore]

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadSource(f"{file} is no YAML") from error
    if not isinstance(content, dict):
        raise BadSource(f"{file} describes no data set: expected train, val and names")
    return content


def _our_names(text: str) -> list[str] | None:
    """The classes of a description that `yaml_text` wrote; ``None``: it is another's."""
    names = re.findall(r"^  \d+: (\S+)$", text, re.MULTILINE)
    return names if text == yaml_text(names) else None


def _names(description: dict[str, Any]) -> tuple[str, ...]:
    names = description.get("names", ())
    if isinstance(names, dict):
        numbered = {str(index): name for index, name in names.items()}
        order = [str(index) for index in range(len(numbered))]
        if numbered.keys() != set(order):
            raise BadSource("the data set's names are not numbered from 0 without a gap")
        names = [numbered[index] for index in order]
    if not isinstance(names, list | tuple):
        raise BadSource("the data set's names are neither a list nor numbered")
    return tuple(str(name) for name in names)


def _named_places(root: Path, description: dict[str, Any], split: str) -> list[Path]:
    """Folders, files and lists that the description names and that are there."""
    for name in _ALIASES.get(split, (split,)):
        given = description.get(name)
        if given:
            texts = [str(one) for one in (given if isinstance(given, list) else [given])]
            bases = [root / str(description.get("path") or "."), root]
            # A download often says ../valid/images and means valid/images.
            tries = [base / part for base in bases for part in (*texts, *map(_downward, texts))]
            return list(dict.fromkeys(place.resolve() for place in tries if place.exists()))
    return []


def _downward(text: str) -> str:
    return re.sub(r"^(\.\./)+", "", text)


def _usual_places(root: Path, split: str) -> list[Path]:
    for name in _ALIASES.get(split, (split,)):
        for place in (root / "images" / name, root / name / "images"):
            if place.is_dir() and any(_pictures(place)):
                return [place]
    flat = root / "images"
    if split == "val" and flat.is_dir() and not any((flat / name).is_dir() for name in _SPLITS):
        return [flat]
    return []


def _pictures(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.suffix.lower() in _PICTURES)


def _split_pictures(place: Path) -> Iterator[Picture]:
    if place.is_file():  # a list of pictures, one a line, relative to itself
        lines = (line.strip() for line in place.read_text("utf-8").splitlines())
        paths = [(place.parent / line, place.parent) for line in lines if line]
    else:
        paths = [(path, place) for path in _pictures(place)]
    for path, base in paths:
        label = next((one for one in _label_paths(path) if one.is_file()), None)
        inside = path.is_relative_to(base) and place.is_dir()
        group = path.parent.relative_to(base).as_posix() if inside else "."
        yield Picture(path, label, "" if group == "." else group)


def _label_paths(picture: Path) -> list[Path]:
    """Where the label may be: the last folder ``images`` read as ``labels``, or beside."""
    beside = picture.with_suffix(".txt")
    parts = list(beside.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            return [Path(*parts), beside]
    return [beside]
