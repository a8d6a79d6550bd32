"""The models that screen: one TOML a model beside its weights, and which series each is for.

A model's file::

    name = "slicewatch-soft-tissue"
    version = "0.1.0"
    weights = "soft-tissue.onnx"    # beside this file
    sha256 = "…"                    # of the weights
    classes = ["soft_tissue_mass"]
    input_size = 224                # edge of the square input, pixels
    threshold = 0.40                # scores below it are not reported
    intensity = "ct_soft_tissue"    # a preset of slicewatch.pixels
    priority = 10                   # where several models fit, the highest is used

    [[series]]                      # the model is for a series that fits any of these blocks
    Modality = "MR"                 # all keys of a block must fit
    SeriesDescription = {matches = "(?i)brain|head"}
    ContrastBolusAgent = {absent = false}
    ImageType = {not = ["LOCALIZER", "SCREEN SAVE"]}
    intensity = "mr_percentile"     # in place of the model's own

    [about]                         # for people; not read

A text or a list of texts fits an attribute that has one of them among its values; ``matches`` is
a regular expression searched in the attribute's text, values joined by backslashes; letter case
counts only in ``matches``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slicewatch import settings, tags
from slicewatch.intensities import PRESETS

_log = logging.getLogger(__name__)

_KEYS = frozenset(
    {
        "name",
        "version",
        "weights",
        "sha256",
        "classes",
        "input_size",
        "threshold",
        "intensity",
        "priority",
        "series",
        "about",
    }
)
_OPTIONAL = frozenset({"priority", "about"})
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WEIGHTS_SUFFIXES = (".onnx", ".pt")


class ModelError(Exception):
    """A model's description or weights cannot be used; the text names the file and the key."""

    def __init__(self, file: Path, key: str, fault: str) -> None:
        super().__init__(f"{file}: {key}: {fault}" if key else f"{file}: {fault}")
        self.file = file
        self.key = key


@dataclass(frozen=True, slots=True)
class Condition:
    """What one attribute of a series must be like.

    Attributes:
        texts: one of them is among the values, ignoring case.
        pattern: or this is found in the text.
        absent: or the attribute must be absent (true) or present (false).
        negated: the opposite; an absent attribute then fits.
    """

    texts: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    absent: bool | None = None
    negated: bool = False

    def fits(self, text: str) -> bool:
        """`text` is empty where the attribute is absent."""
        if self.absent is not None:
            return (not text) == self.absent
        if self.pattern is not None:
            found = self.pattern.search(text) is not None
        else:
            values = {value.strip().casefold() for value in (text, *text.split("\\"))}
            found = any(wanted.casefold() in values for wanted in self.texts)
        return found != self.negated


@dataclass(frozen=True, slots=True)
class SeriesBlock:
    """One ``[[series]]`` block: all of its conditions hold."""

    conditions: tuple[tuple[str, Condition], ...]
    intensity: str

    def fits(self, attributes: Mapping[str, str]) -> bool:
        return all(
            condition.fits(attributes.get(keyword, "")) for keyword, condition in self.conditions
        )


@dataclass(frozen=True, slots=True)
class Model:
    """A model's description, checked; see the module's text.

    Attributes:
        file: the TOML it was read from, for error texts.
        weights: path of the weights.
    """

    file: Path
    name: str
    version: str
    weights: Path
    sha256: str
    classes: tuple[str, ...]
    input_size: int
    threshold: float
    intensity: str
    priority: int
    series: tuple[SeriesBlock, ...]

    @property
    def key(self) -> str:
        """``name@version``, as `SliceResult.model` has it."""
        return f"{self.name}@{self.version}"

    def read_weights(self) -> bytes:
        """The weights' bytes. Raises `ModelError` when their hash is not the description's."""
        weights = self.weights.read_bytes()
        digest = hashlib.sha256(weights).hexdigest()
        if digest != self.sha256:
            raise ModelError(
                self.file,
                "sha256",
                f"{self.weights.name} has {digest}: corrupted or swapped weights are not used",
            )
        return weights


@dataclass(frozen=True, slots=True)
class Choice:
    """The model for a series, and the intensity preset of its frames."""

    model: Model
    intensity: str


@dataclass(frozen=True, slots=True)
class Registry:
    """All models of a folder, the preferred first.

    Attributes:
        digest: hex SHA-256 over all descriptions with their weights' hashes: results that another
            digest's models gave are not these models' results.
    """

    models: tuple[Model, ...]
    digest: str

    @classmethod
    def load(cls, folder: Path) -> Registry:
        """Read ``*.toml`` of a folder. A folder without models is legal: nothing is screened.

        Raises:
            ModelError: the folder is missing, a description is broken, its weights are missing,
                or two models have one name.
        """
        if not folder.is_dir():
            raise ModelError(folder, "", "the folder of models does not exist")
        described = [_read(file) for file in sorted(folder.glob("*.toml"))]
        seen: dict[str, Path] = {}
        for model, _ in described:
            if model.name in seen:
                raise ModelError(model.file, "name", f"{seen[model.name]} has the same name")
            seen[model.name] = model.file
        models = sorted((model for model, _ in described), key=lambda m: (-m.priority, m.name))
        content = json.dumps([content for _, content in described], sort_keys=True)
        return cls(tuple(models), hashlib.sha256(content.encode()).hexdigest())

    def choose(self, attributes: Mapping[str, str]) -> Choice | None:
        """The first model that fits a series.

        Args:
            attributes: `Header.attributes`.
        """
        for model in self.models:
            for block in model.series:
                if block.fits(attributes):
                    return Choice(model, block.intensity)
        return None


@cache
def current() -> Registry:
    """The registry that the app settings name, read once a process."""
    return Registry.load(settings.current().models)


def check() -> None:
    """Check at the app's start what the first study would fail on, or would not be told of.

    Raises:
        ModelError: weights are not those of their description.
        SettingError: ``SLICEWATCH_DETECT_MODEL`` names no model.
    """
    app, registry = settings.current(), current()
    for model in registry.models:
        model.read_weights()
    if not registry.models:
        _log.warning(
            "%s holds no model: NOTHING IS SCREENED, and every study will be not_screened. Put a "
            "model's TOML and weights there, or set SLICEWATCH_MODELS.",
            app.models,
        )
    wanted = app.detect_model
    if wanted and all(wanted not in (model.name, model.key) for model in registry.models):
        known = ", ".join(model.name for model in registry.models) or "there is none"
        raise settings.SettingError(
            f"SLICEWATCH_DETECT_MODEL is {wanted!r}; expected the name of a model: {known}"
        )


# --- reading a description ----------------------------------------------------------------------


def _read(file: Path) -> tuple[Model, dict[str, Any]]:
    """The model, and what its digest covers."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(file, "", f"is no TOML: {error}") from error
    for key in content:
        if key not in _KEYS:
            raise ModelError(file, key, f"unknown key; known are {', '.join(sorted(_KEYS))}")
    for key in sorted(_KEYS - _OPTIONAL):
        if key not in content:
            raise ModelError(file, key, "is missing")
    field = _Fields(file, content)
    intensity = field.preset(content["intensity"], "intensity")
    model = Model(
        file=file,
        name=field.text("name", lambda v: bool(_NAME.fullmatch(v)), "lower case, digits, dashes"),
        version=field.text("version", lambda v: "@" not in v, "no @"),
        weights=field.weights(),
        sha256=field.text("sha256", lambda v: bool(_SHA256.fullmatch(v)), "64 hex digits"),
        classes=field.classes(),
        input_size=field.whole("input_size", lambda v: 32 <= v <= 4096 and v % 32 == 0),
        threshold=field.share("threshold"),
        intensity=intensity,
        priority=field.whole("priority", lambda v: True) if "priority" in content else 0,
        series=field.series(intensity),
    )
    content.pop("about", None)
    return model, content


@dataclass(frozen=True, slots=True)
class _Fields:
    """Typed access to a description; every fault names file and key."""

    file: Path
    content: dict[str, Any]

    def fault(self, key: str, fault: str) -> ModelError:
        return ModelError(self.file, key, fault)

    def text(self, key: str, check: Callable[[str], bool], expected: str) -> str:
        value = self.content[key]
        if not isinstance(value, str) or not value or not check(value):
            raise self.fault(key, f"is {value!r}; expected a text: {expected}")
        return value

    def whole(self, key: str, check: Callable[[int], bool]) -> int:
        value = self.content[key]
        if not isinstance(value, int) or isinstance(value, bool) or not check(value):
            sizes = " from 32 to 4096 and divisible by 32" if key == "input_size" else ""
            raise self.fault(key, f"is {value!r}; expected a whole number{sizes}")
        return value

    def share(self, key: str) -> float:
        value = self.content[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise self.fault(key, f"is {value!r}; expected a number between 0 and 1")
        return float(value)

    def weights(self) -> Path:
        name = self.text(
            "weights",
            lambda v: Path(v).name == v and v.endswith(_WEIGHTS_SUFFIXES),
            f"a file beside this one, {' or '.join(_WEIGHTS_SUFFIXES)}",
        )
        path = self.file.parent / name
        if not path.is_file():
            raise self.fault("weights", f"{path} does not exist")
        return path

    def classes(self) -> tuple[str, ...]:
        value = self.content["classes"]
        texts = isinstance(value, list) and all(isinstance(v, str) and v for v in value)
        if not texts or not value or len(set(value)) != len(value):
            raise self.fault("classes", f"is {value!r}; expected a list of different texts")
        return tuple(value)

    def preset(self, value: object, key: str) -> str:
        if not isinstance(value, str) or value not in PRESETS:
            raise self.fault(key, f"is {value!r}; expected one of {', '.join(PRESETS)}")
        return value

    def series(self, intensity: str) -> tuple[SeriesBlock, ...]:
        blocks = self.content["series"]
        if not isinstance(blocks, list) or not blocks:
            raise self.fault("series", "expected at least one [[series]] block")
        return tuple(
            self._block(block, f"series[{index}]", intensity)
            for index, block in enumerate(blocks, 1)
        )

    def _block(self, block: object, key: str, intensity: str) -> SeriesBlock:
        if not isinstance(block, dict):
            raise self.fault(key, "expected a table: [[series]]")
        conditions = []
        for keyword, value in block.items():
            if keyword == "intensity":
                intensity = self.preset(value, f"{key}.intensity")
            elif keyword not in tags.MODEL_SELECTION:
                known = ", ".join(tags.MODEL_SELECTION)
                raise self.fault(f"{key}.{keyword}", f"is none of the attributes {known}")
            else:
                conditions.append((keyword, self._condition(value, f"{key}.{keyword}")))
        if not conditions:
            raise self.fault(key, "has no condition, so it would fit every series")
        return SeriesBlock(tuple(conditions), intensity)

    def _condition(self, value: object, key: str, *, negated: bool = False) -> Condition:
        match value:
            case str() if value:
                return Condition(texts=(value,), negated=negated)
            case [*texts] if texts and all(isinstance(text, str) and text for text in texts):
                return Condition(texts=tuple(map(str, texts)), negated=negated)
            case {"matches": str(pattern), **others} if not others:
                try:
                    return Condition(pattern=re.compile(pattern), negated=negated)
                except re.error as error:
                    fault = f"{pattern!r} is no regular expression: {error}"
                    raise self.fault(key, fault) from error
            case {"absent": bool(absent), **others} if not others and not negated:
                return Condition(absent=absent)
            case {"not": opposite, **others} if not others and not negated:
                return self._condition(opposite, key, negated=True)
        raise self.fault(
            key,
            f"is {value!r}; expected a text, a list of texts, {{matches = …}}, {{absent = …}}"
            " or {not = …}",
        )
