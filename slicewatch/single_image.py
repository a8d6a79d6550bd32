"""One image on demand: the model looks, and somebody is told only when needed.

An event brings an image, a photograph's file or a DICOM object; the answer names what was found,
and whether it calls for an alert by the app settings.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slicewatch.limits import DEFAULT_LIMITS, Limits, Rejected
from slicewatch.record import Record
from slicewatch.records import DISCLAIMER, Detection, Reason
from slicewatch.settings import Settings
from slicewatch.storage import Storage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slicewatch.model_registry import Choice, Registry

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


class UnknownModel(LookupError):
    """No model has the name asked for, or none fits the image; the text says which there are."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert rule: a detection of this class (``*``: any) at or above this score calls."""

    label: str
    score: float

    def calls(self, detection: Detection) -> bool:
        return self.label in ("*", detection.label) and detection.score >= self.score


@dataclass(frozen=True, slots=True)
class Seen(Detection):
    """A detection, in the frame (from 1) it was made on."""

    frame: int = 1


@dataclass(frozen=True, slots=True)
class Look(Record):
    """What the model saw in one image.

    Attributes:
        detections: best first; boxes in pixels of the frame.
        alert: the alert rules are met.
    """

    model: str
    frames: int
    detections: tuple[Seen, ...]
    alert: bool

    @property
    def top_class(self) -> str | None:
        """Class of the best detection."""
        return self.detections[0].label if self.detections else None

    def body(self) -> dict[str, object]:
        """The answer's body."""
        return {
            "objects_detected": len(self.detections),
            "top_class": self.top_class,
            "detections": [one.to_json() for one in self.detections],
            "alert": self.alert,
            "model": self.model,
            "frames": self.frames,
            "disclaimer": DISCLAIMER,
        }


def look(data: bytes, registry: Registry, settings: Settings, *, model: str | None = None) -> Look:
    """Run the detector on every frame of a JPEG, PNG or DICOM file.

    Args:
        model: name of the model; where it is ``None``, a DICOM object's attributes choose, and for
            other files ``SLICEWATCH_DETECT_MODEL``, or else the model of the highest priority.

    Raises:
        Rejected: the bytes are no such image, or over a bound.
        UnknownModel: there is no such model, or none fits.
        ModelError: the model's weights cannot be used.
    """
    from slicewatch.detector import MAX_BATCH, detector_for

    limits = Limits.of(settings)
    if data.startswith((_JPEG, _PNG)):
        choice = _named(registry, model or settings.detect_model)
        frames: Iterator[NDArray[np.uint8]] = iter([photograph(data, choice.intensity, limits)])
    else:
        choice, frames = _dicom(data, registry, model, limits)
    detector = detector_for(choice.model, threads=settings.onnx_threads)
    found: list[Seen] = []
    count = 0
    while chunk := [frame for _, frame in zip(range(MAX_BATCH), frames, strict=False)]:
        for detections in detector.detect(chunk):
            count += 1
            found += [Seen(one.label, one.score, one.box, count) for one in detections]
    found.sort(key=lambda one: -one.score)
    rules = alert_rules(settings)
    alert = any(rule.calls(one) for rule in rules for one in found)
    return Look(choice.model.key, count, tuple(found), alert)


def alert_rules(settings: Settings) -> tuple[Alert, ...]:
    """The rules of ``SLICEWATCH_ALERTS``, checked when the settings were read."""
    return tuple(Alert(label, score) for label, score in settings.alerts)


def send_alert(storage: Storage, settings: Settings, seen: Look, source: str) -> None:
    """Tell the alert queue: what was seen and on which image, no patient data.

    Args:
        source: the blob's name, or ``upload``.
    """
    message = {
        "source": source,
        "model": seen.model,
        "objects_detected": len(seen.detections),
        "top_class": seen.top_class,
        "top_score": seen.detections[0].score,
        "classes": dict(Counter(one.label for one in seen.detections)),
    }
    storage.enqueue(settings.alert_queue, json.dumps(message))


def _named(registry: Registry, name: str) -> Choice:
    from slicewatch.model_registry import Choice

    for model in registry.models:
        if not name or name in (model.name, model.key):
            return Choice(model, model.intensity)
    known = ", ".join(model.name for model in registry.models) or "none"
    raise UnknownModel(f"no model is called {name[:80]!r}; there are: {known}")


def _dicom(
    data: bytes, registry: Registry, name: str | None, limits: Limits
) -> tuple[Choice, Iterator[NDArray[np.uint8]]]:
    from slicewatch.dicom import read
    from slicewatch.pixels import to_gray

    instance = read(data, limits)
    if not instance.header.is_image:
        raise Rejected(Reason.NOT_AN_IMAGE, instance.header.sop_class_uid)
    choice = _named(registry, name) if name else registry.choose(instance.header.attributes)
    if choice is None:
        raise UnknownModel("no model fits this object's series; name one to have it looked at")
    intensity = choice.intensity
    return choice, (to_gray(one.values, intensity, one.voi) for one in instance.frames())


def photograph(
    data: bytes,
    intensity: str,
    limits: Limits = DEFAULT_LIMITS,
    formats: tuple[str, ...] = ("JPEG", "PNG"),
) -> NDArray[np.uint8]:
    """A picture file as display gray, upright by its EXIF orientation.

    Args:
        intensity: preset of the model that is to look at it.
        formats: as Pillow calls them.

    Raises:
        Rejected: it does not decode, or is over a bound.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from slicewatch.pixels import to_gray

    if len(data) > limits.max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{len(data)} bytes")
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > limits.max_pixels_per_frame:
                raise Rejected(Reason.TOO_LARGE, f"{image.height} × {image.width} pixels")
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith(("I", "F"))
            values = np.asarray(upright if deep else upright.convert("L"), np.float32)
    except Image.DecompressionBombError as error:  # Pillow's own bound, met as the file is opened
        raise Rejected(Reason.TOO_LARGE, "more pixels than any bound allows") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Rejected(Reason.DECODE_FAILED, f"{type(error).__name__}") from error
    # Such a file is windowed already, so a window in modality units means nothing for it; the
    # stretch of MR images is by the image itself and holds for both.
    if not intensity.startswith("mr_"):
        intensity = "full_range" if deep else "eight_bit"
    return to_gray(values, intensity)
