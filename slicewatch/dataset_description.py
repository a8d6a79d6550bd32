"""What a data set is to look like: classes, picture size, intensities, which structures count.

``dataset.toml`` beside its sources describes a data set. Without one, or with a model's name, the
model gives classes, size and intensities, so that what is prepared is what it is served with::

    model = "slicewatch-soft-tissue"    # of the registry; or, for a detector that is not there yet:
    classes = ["meningioma", "glioma"]
    size = 256                          # edge of the pictures, pixels; may differ from the model's
    validation_share = 0.2              # of the patients

    [intensities]                       # modality → preset of slicewatch.pixels
    MR = "mr_percentile"
    "*" = "full_range"                  # any other

    [labels]                            # names of ROIs or segments, with * and ?, → class
    "GTV*" = "glioma"
    "*mening*" = "meningioma"           # the first that fits, letter case aside

Without ``[labels]``, a structure is of the class whose name is in its own; where there is but one
class, names with GTV, mass, tumour or lesion are of it, too.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slicewatch.dataset_planning import LabelMap
from slicewatch.intensities import PRESETS
from slicewatch.model_registry import Model, Registry
from slicewatch.record import Record

FILE = "dataset.toml"
_KEYS = frozenset({"model", "classes", "size", "validation_share", "intensities", "labels"})
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
MAX_BYTES = 64 << 10
_MAX_RULES, _MAX_CLASSES = 200, 100
_ONE_CLASS = ("GTV*", "*mass*", "*tumor*", "*tumour*", "*lesion*")


class BadDescription(Exception):
    """A description cannot be used; the text names the key and what is expected."""


@dataclass(frozen=True, slots=True)
class Description(Record):
    """A data set's description; without `classes` it is to be completed by a model.

    Attributes:
        model: name of the model that the rest is of; empty: the one that serving would choose
            for most of the series.
        size: edge of the pictures, pixels; 0: the model's.
        intensities: modality → preset, ``*`` for any other.
        labels: (pattern, class), first hit wins.
    """

    model: str = ""
    classes: tuple[str, ...] = ()
    size: int = 0
    validation_share: float = 0.2
    intensities: dict[str, str] = field(default_factory=dict)
    labels: tuple[tuple[str, str], ...] = ()

    def intensity(self, modality: str) -> str:
        return self.intensities.get(modality) or self.intensities["*"]

    def label_map(self) -> LabelMap:
        """Which structures become which class."""
        rules = self.labels or tuple(_default_labels(self.classes))
        return LabelMap(tuple((fnmatch.translate(glob), label) for glob, label in rules))


def read(text: bytes) -> Description:
    """Read ``dataset.toml``. Raises `BadDescription`."""
    try:
        content = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDescription(f"{FILE} is no TOML: {error}") from None
    unknown = sorted(content.keys() - _KEYS)
    if unknown:
        raise BadDescription(f"{FILE} has the unknown key {unknown[0][:64]!r}")
    model = content.get("model", "")
    if not isinstance(model, str):
        raise BadDescription(f"{FILE}: model: expected a name")
    classes = _classes(content.get("classes", []))
    description = Description(
        model=model,
        classes=classes,
        size=_size(content.get("size", 0)),
        validation_share=_share(content.get("validation_share", 0.2)),
        intensities=_intensities(content.get("intensities", {})),
        labels=tuple(_labels(content.get("labels", {}), classes)),
    )
    if classes and model:
        raise BadDescription(f"{FILE} has both model and classes; one of them gives the classes")
    if classes and not (description.size and "*" in description.intensities):
        raise BadDescription(f'{FILE} has classes, so it needs size and [intensities] with "*"')
    return description


def completed(
    description: Description, registry: Registry, series: Mapping[str, int]
) -> Description:
    """The description with what it leaves to a model.

    Args:
        series: model name → objects that serving would choose it for.

    Raises:
        BadDescription: there is no such model, or it lacks a class that `labels` names.
    """
    if description.classes:
        return description
    model = _model(description.model, registry, series)
    foreign = sorted({label for _, label in description.labels} - set(model.classes))
    if foreign:
        raise BadDescription(f"{FILE}: labels: {model.name} has no class {foreign[0]}")
    return dataclasses.replace(
        description,
        model=model.name,
        classes=model.classes,
        size=description.size or model.input_size,
        intensities=_intensities_of(model) | description.intensities,
    )


def _model(name: str, registry: Registry, series: Mapping[str, int]) -> Model:
    known = {model.name: model for model in registry.models}
    if name and name not in known:
        names = ", ".join(known) or "none"
        raise BadDescription(f"{FILE}: model: {name[:64]!r} is none of the registry's: {names}")
    if name:
        return known[name]
    # The registry's order decides between models that fit as many.
    fitting = [model for model in registry.models if series.get(model.name)]
    if not fitting:
        raise BadDescription(
            f"no model of the registry is for these series; put a {FILE} with classes, size and "
            "intensities beside them"
        )
    return max(fitting, key=lambda model: series[model.name])


def _intensities_of(model: Model) -> dict[str, str]:
    """By modality, as the model's series blocks have them."""
    found = {"*": model.intensity}
    for block in model.series:
        for keyword, condition in block.conditions:
            if keyword == "Modality" and not condition.negated:
                for text in condition.texts:
                    found.setdefault(text.upper(), block.intensity)
    return found


def _default_labels(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    rules = [(f"*{re.sub('[_-]', '?', label)}*", label) for label in classes]
    if len(classes) == 1:
        rules += [(glob, classes[0]) for glob in _ONE_CLASS]
    return rules


# --- reading ------------------------------------------------------------------------------------


def _classes(value: Any) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > _MAX_CLASSES
        or not all(isinstance(one, str) and _CLASS.fullmatch(one) for one in value)
        or len(set(value)) < len(value)
    ):
        raise BadDescription(
            f"{FILE}: classes: expected different names of letters, digits, _ and -"
        )
    return tuple(value)


def _size(value: Any) -> int:
    if type(value) is not int or (value and (value % 32 or not 64 <= value <= 2048)):
        raise BadDescription(f"{FILE}: size: expected a multiple of 32 from 64 to 2048")
    return value


def _share(value: Any) -> float:
    if not isinstance(value, float) or not 0 < value < 1:
        raise BadDescription(f"{FILE}: validation_share: expected a number between 0 and 1")
    return value


def _intensities(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadDescription(f"{FILE}: intensities: expected modality = preset")
    for preset in value.values():
        if not isinstance(preset, str) or preset not in PRESETS:
            raise BadDescription(
                f"{FILE}: intensities: expected presets of {', '.join(sorted(PRESETS))}"
            )
    return {str(key).upper(): preset for key, preset in value.items()}


def _labels(value: Any, classes: tuple[str, ...]) -> list[tuple[str, str]]:
    if not isinstance(value, dict) or len(value) > _MAX_RULES:
        raise BadDescription(f"{FILE}: labels: expected at most {_MAX_RULES} of pattern = class")
    for label in value.values():
        if not isinstance(label, str) or (classes and label not in classes):
            raise BadDescription(f"{FILE}: labels: {str(label)[:64]!r} is none of the classes")
    return list(value.items())
