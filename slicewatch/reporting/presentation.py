"""Boxes as graphic annotations: Grayscale Softcopy Presentation States (PS3.3 section A.33.1).

One presentation state says how all the images that it names are shown: their size, their Modality
LUT, their polarity, the shape of their pixels. So there is one for each series and, within it, for
each such way (`Display`): one for a CT series, and several where images differ in their rescaling.
Windows may differ from image to image; each is shown with its own. Images that name none are shown
with one for all of them: a viewer would otherwise take the full range of the stored bits, and show
an even gray.

Colour images have no grayscale presentation, and a Modality LUT that is a table is not copied:
boxes on those are in the report alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from highdicom import ModalityLUTTransformation, PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.content import ReferencedImageSequence
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from highdicom.utils import is_tiled_image
from pydicom import Dataset

from slicewatch.records import Review
from slicewatch.reporting import equipment, uids
from slicewatch.reporting.regions import Region
from slicewatch.reporting.subject import as_evidence

SERIES_NUMBER = 9902
MAX_STATES = 32
"""Presentation states of one review: a PET series has as many rescalings as slices."""

_LAYER = "SLICEWATCH"
_YELLOW = (97.0, -21.0, 94.0)  # CIELab, D50
_GRAYSCALE = ("MONOCHROME1", "MONOCHROME2")

type Window = tuple[float, float, str]
"""Centre and width in modality units, VOI LUT function."""


@dataclass(frozen=True, slots=True)
class Display:
    """What all images of one presentation state have in common.

    Attributes:
        rescale: slope, intercept, type; ``None``: the stored values are shown.
        spacing: between rows and columns, mm; ``None`` where it is unknown.
    """

    series: str
    modality: str
    rows: int
    columns: int
    rescale: tuple[float, float, str] | None
    inverted: bool
    spacing: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame as it is shown, and the boxes on it, each with its label."""

    display: Display
    window: Window | None
    regions: tuple[tuple[str, Region], ...]

    @property
    def region(self) -> Region:
        """Any of its regions: they lie on the same frame."""
        return self.regions[0][1]


def shown(image: Dataset, series: str, regions: Iterable[tuple[str, Region]]) -> list[Shown]:
    """How the frames of an image are shown that boxes lie on; none for a colour image.

    Args:
        image: its attributes, from anywhere; what is malformed counts as missing.
    """
    if str(image.get("PhotometricInterpretation")) not in _GRAYSCALE or (
        image.get("SamplesPerPixel") != 1 or "ModalityLUTSequence" in image or is_tiled_image(image)
    ):
        return []
    by_frame: dict[int, list[tuple[str, Region]]] = defaultdict(list)
    for label, region in regions:
        by_frame[region.frame].append((label, region))
    return [
        Shown(_display(image, series, frame), _window(image, frame), tuple(members))
        for frame, members in sorted(by_frame.items())
    ]


def grouped(frames: Iterable[Shown]) -> list[list[Shown]]:
    """The frames of each presentation state; those with the highest scores first."""
    groups: dict[Display, list[Shown]] = defaultdict(list)
    for one in frames:
        groups[one.display].append(one)
    return [
        sorted(members, key=lambda one: (one.region.on.instance, one.region.frame))
        for _, members in sorted(groups.items(), key=lambda item: (-_best(item[1]), repr(item[0])))
    ]


def _best(frames: Iterable[Shown]) -> float:
    return max(region.score or 0.0 for one in frames for _, region in one.regions)


def with_window(frames: Iterable[Shown], window: Window) -> list[Shown]:
    """The frames, those without a window with this one."""
    return [replace(one, window=one.window or window) for one in frames]


def build(review: Review, subject: Dataset, frames: Sequence[Shown], number: int) -> Dataset:
    """One presentation state as a dataset with file meta information.

    Args:
        frames: a group of `grouped`.
        number: of the state, from 1.
    """
    display = frames[0].display
    nobody = equipment.nobody(subject)
    images = {one.region.on.instance: as_evidence(one.region.on, nobody) for one in frames}
    layer = GraphicLayer(_LAYER, 1, "Boxes of a detector", display_color=CIELabColor(*_YELLOW))
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=list(images.values()),
        series_instance_uid=uids.series_uid(review.study_instance_uid, uids.Kind.PRESENTATION),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.of_review(review, "presentation", number),
        instance_number=review.generation * 100 + number,
        device_serial_number="",
        content_label=_LAYER,
        content_description="Boxes of a detector: research, not for clinical use",
        graphic_annotations=[_annotation(one, images, layer) for one in frames],
        graphic_layers=[layer],
        modality_lut_transformation=_modality_lut(display),
        voi_lut_transformations=_windows(frames, images),
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if display.inverted else "IDENTITY"
        ),
        **equipment.described(review, "Slicewatch boxes"),
    )
    del state.DeviceSerialNumber
    state.Laterality = ""  # type 2C of General Series, of a body part that nothing here knows
    if display.rescale is None:
        for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
            state.pop(keyword, None)
    if not _windows(frames, images):
        state.pop("SoftcopyVOILUTSequence", None)
    _name_frames(state, frames)
    (area,) = state.DisplayedAreaSelectionSequence
    if display.spacing:
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = [f"{side:.8g}" for side in display.spacing]
    return equipment.finish(state, subject, str(review.timings["assessed"]))


# --- annotations --------------------------------------------------------------------------------


def _annotation(
    one: Shown, images: Mapping[str, Dataset], layer: GraphicLayer
) -> GraphicAnnotation:
    region = one.region
    return GraphicAnnotation(
        referenced_images=[images[region.on.instance]],
        graphic_layer=layer,
        referenced_frame_number=region.frames,
        graphic_objects=[
            GraphicObject("POLYLINE", np.array(inner.corners), "PIXEL") for _, inner in one.regions
        ],
        text_objects=[_caption(label, inner) for label, inner in one.regions],
    )


def _caption(label: str, region: Region) -> TextObject:
    score = "" if region.score is None else f" {region.score:.2f}"
    x1, y1, _, _ = region.box
    return TextObject(
        f"{label}{score}"[:1024], "PIXEL", anchor_point=(x1, y1), anchor_point_visible=False
    )


def _name_frames(state: Dataset, frames: Sequence[Shown]) -> None:
    """The frames of a multi-frame image that the state is for (section C.11.11)."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for one in frames:
        if one.region.frames:
            numbers[one.region.on.instance].append(one.region.frame)
    for series in state.ReferencedSeriesSequence:
        for image in series.ReferencedImageSequence:
            if image.ReferencedSOPInstanceUID in numbers:
                image.ReferencedFrameNumber = sorted(numbers[image.ReferencedSOPInstanceUID])


# --- gray values --------------------------------------------------------------------------------


def _modality_lut(display: Display) -> ModalityLUTTransformation:
    slope, intercept, kind = display.rescale or (1.0, 0.0, "US")
    return ModalityLUTTransformation(
        rescale_intercept=intercept, rescale_slope=slope, rescale_type=kind
    )


def _windows(
    frames: Sequence[Shown], images: Mapping[str, Dataset]
) -> list[SoftcopyVOILUTTransformation] | None:
    """The windows that the images ask for, each with the images it is for (section C.11.8);
    ``None`` where none has one.
    """
    single: dict[Window, list[Dataset]] = defaultdict(list)
    multi: dict[tuple[Window, str], list[int]] = defaultdict(list)
    for one in frames:
        if one.window is not None and one.region.frames:
            multi[one.window, one.region.on.instance].append(one.region.frame)
        elif one.window is not None:
            single[one.window].append(images[one.region.on.instance])
    found = [
        _voi(window, ReferencedImageSequence(referenced_images=members))
        for window, members in single.items()
    ]
    found += [
        _voi(
            window,
            ReferencedImageSequence(
                referenced_images=[images[instance]], referenced_frame_number=sorted(numbers)
            ),
        )
        for (window, instance), numbers in multi.items()
    ]
    return found or None


def _voi(window: Window, on: ReferencedImageSequence) -> SoftcopyVOILUTTransformation:
    centre, width, function = window
    return SoftcopyVOILUTTransformation(
        window_center=centre, window_width=width, voi_lut_function=function, referenced_images=on
    )


# --- attributes of an image ---------------------------------------------------------------------


def _display(image: Dataset, series: str, frame: int) -> Display:
    values = _item(image, frame, "PixelValueTransformationSequence")
    slope, intercept = _number(values, "RescaleSlope"), _number(values, "RescaleIntercept")
    rescale = None
    if slope is not None and intercept is not None and slope != 0:
        rescale = slope, intercept, _rescale_type(values, image)
    measures = _item(image, frame, "PixelMeasuresSequence")
    spacing = _numbers(measures, "PixelSpacing") or _numbers(image, "ImagerPixelSpacing")
    return Display(
        series=series,
        modality=str(image.get("Modality") or ""),
        rows=int(image.Rows),
        columns=int(image.Columns),
        rescale=rescale,
        inverted=str(image.PhotometricInterpretation) == "MONOCHROME1",
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None,
    )


def _rescale_type(values: Dataset, image: Dataset) -> str:
    stated = str(values.get("RescaleType") or "")
    return stated[:16] or ("HU" if image.get("Modality") == "CT" else "US")


def _window(image: Dataset, frame: int) -> Window | None:
    values = _item(image, frame, "FrameVOILUTSequence")
    centres, widths = _numbers(values, "WindowCenter"), _numbers(values, "WindowWidth")
    function = str(values.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        function = "LINEAR"
    if not centres or not widths or widths[0] < 1:
        return None
    return centres[0], widths[0], function


def _item(image: Dataset, frame: int, macro: str) -> Dataset:
    """The item of a functional group for a frame (section C.7.6.16), or the image itself."""
    per_frame = image.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*per_frame[frame - 1 : frame], *(image.get("SharedFunctionalGroupsSequence") or ())]
    for group in groups:
        if group.get(macro):
            item: Dataset = group[macro].value[0]
            return item
    return image


def _number(item: Dataset, keyword: str) -> float | None:
    found = _numbers(item, keyword)
    return found[0] if found else None


def _numbers(item: Dataset, keyword: str) -> list[float]:
    try:
        value: Any = item.get(keyword)
        values = [float(one) for one in np.atleast_1d(value)] if value is not None else []
    except (ValueError, TypeError):
        return []
    return values if np.isfinite(values).all() else []
