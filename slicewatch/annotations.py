"""What people drew, as boxes on frames: RTSTRUCT contours, SEG masks, mask pictures, YOLO labels.

Contours and segmentations are brought onto frames by geometry alone (patient coordinates, LPS mm),
never by index: instance numbers and file order say nothing reliable about position. Boxes are
pixel edges of the source frame, ``(x1, y1, x2, y2)``, as in `slicewatch.records`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicewatch.records import Box, Geometry

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MAX_MASK_PIXELS = 1 << 29
"""Bound on rows × columns × frames of a segmentation, which is unpacked as a whole."""

DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # NotImplementedError: a value representation that is none
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises when it meets a damaged object, at once or when an element is first used."""


class BadAnnotation(Exception):
    """An annotation cannot be used; the text names the cause and holds no patient data."""


@dataclass(frozen=True, slots=True)
class Region:
    """One outlined structure: its points on every plane it was drawn on.

    Attributes:
        name: ROIName or SegmentLabel.
        outlines: arrays (n, 3), LPS mm, each a planar outline (contour, or corners of a mask).
    """

    name: str
    outlines: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True)
class Annotated:
    """A box with the name of what it surrounds."""

    name: str
    box: Box


def regions_of(data: bytes) -> tuple[Region, ...]:
    """Regions of an RT Structure Set or a Segmentation object.

    Raises:
        BadAnnotation: it is neither, or lacks what is needed to place it.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        file = pydicom.dcmread(io.BytesIO(data), force=False)
        modality = file.get("Modality")
    except (InvalidDicomError, *DAMAGED) as error:
        raise BadAnnotation("the annotation is no readable DICOM file") from error
    match modality:
        case "RTSTRUCT":
            return _contours(file)
        case "SEG":
            return _segments(file)
        case other:
            raise BadAnnotation(f"neither RTSTRUCT nor SEG, but modality {other!r}")


def _contours(file: Dataset) -> tuple[Region, ...]:
    """ROI Contour module, PS3.3 section C.8.8.6."""
    try:
        named = {
            int(roi.ROINumber): str(roi.get("ROIName", "")) for roi in file.StructureSetROISequence
        }
        regions = []
        for roi in file.ROIContourSequence:
            outlines = [
                np.array(contour.ContourData, np.float64).reshape(-1, 3)
                for contour in roi.get("ContourSequence", ())
                if contour.get("ContourGeometricType", "CLOSED_PLANAR") == "CLOSED_PLANAR"
            ]
            regions.append(Region(named[int(roi.ReferencedROINumber)], tuple(outlines)))
    except DAMAGED as error:
        raise BadAnnotation("the structure set's contours are incomplete or malformed") from error
    return tuple(regions)


def _segments(file: Dataset) -> tuple[Region, ...]:
    """Segmentation module, PS3.3 section C.8.20.2: each frame is one segment on one plane."""
    try:
        names = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in file.SegmentSequence}
        if file.Rows * file.Columns * int(file.get("NumberOfFrames") or 1) > _MAX_MASK_PIXELS:
            raise BadAnnotation(f"the segmentation has more than {_MAX_MASK_PIXELS} pixels")
        masks = np.asarray(file.pixel_array).reshape(-1, file.Rows, file.Columns)
        if file.SegmentationType == "FRACTIONAL":
            masks = masks * 2 > int(file.MaximumFractionalValue)
        shared = file.SharedFunctionalGroupsSequence[0]
        outlines: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
        for mask, own in zip(masks, file.PerFrameFunctionalGroupsSequence, strict=True):
            number = int(
                _group(own, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber
            )
            box = mask_box(mask > 0)
            if box is not None:
                outlines[names[number]].append(_corners(box, own, shared))
    except DAMAGED as error:
        raise BadAnnotation("the segmentation is incomplete or does not decode") from error
    return tuple(Region(name, tuple(outlines[name])) for name in dict.fromkeys(names.values()))


def _group(own: Dataset, shared: Dataset, keyword: str) -> Any:
    """A functional group's item: the frame's own, else the shared one (PS3.3 C.7.6.16)."""
    return (own.get(keyword) or shared[keyword].value)[0]


def _corners(box: Box, own: Dataset, shared: Dataset) -> NDArray[np.float64]:
    """A box in pixel edges → its corners (4, 3), LPS mm (PS3.3 equation C.7.6.2.1-1)."""
    origin = np.array(_group(own, shared, "PlanePositionSequence").ImagePositionPatient, float)
    cosines = _group(own, shared, "PlaneOrientationSequence").ImageOrientationPatient
    spacing = _group(own, shared, "PixelMeasuresSequence").PixelSpacing
    along_row = np.array(cosines[:3], float) * float(spacing[1])
    along_column = np.array(cosines[3:], float) * float(spacing[0])
    x1, y1, x2, y2 = (edge - 0.5 for edge in box)
    return np.array(
        [
            origin + x * along_row + y * along_column
            for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
        ]
    )


def yolo_line(line: str) -> tuple[float, float, float, float, float]:
    """A line of a YOLO label file: class, centre, width and height, shares of the frame.

    A line with an outline (``class x1 y1 x2 y2 x3 y3 …``, as for segmentation) is the box round it,
    as Ultralytics takes it for detection.

    Raises:
        ValueError: it is neither of the two.
    """
    index, *shares = (float(word) for word in line.split())
    if len(shares) == 4:
        x, y, width, height = shares
        return index, x, y, width, height
    if len(shares) < 6 or len(shares) % 2:
        raise ValueError(f"{len(shares)} numbers after the class")
    left, right = min(shares[::2]), max(shares[::2])
    top, bottom = min(shares[1::2]), max(shares[1::2])
    return index, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def yolo_boxes(text: str, classes: Sequence[str], rows: int, columns: int) -> tuple[Annotated, ...]:
    """Boxes of a YOLO label file in pixels of the frame; see `yolo_line`.

    Raises:
        BadAnnotation: a line is not of that form, or of a class that is not in `classes`.
    """
    boxes = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            index, x, y, width, height = yolo_line(line)
            if index != int(index) or not 0 <= index < len(classes):
                raise ValueError
        except (ValueError, OverflowError) as error:
            raise BadAnnotation(
                f"line {number} is not 'class x y width height' of classes 0 to {len(classes) - 1}"
            ) from error
        edges = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        box = edges[0] * columns, edges[1] * rows, edges[2] * columns, edges[3] * rows
        boxes.append(Annotated(classes[int(index)], box))
    return tuple(boxes)


def place(
    regions: Sequence[Region],
    frames: Sequence[tuple[Geometry, int, int]],
    *,
    minimum: float = 2.0,
) -> tuple[list[tuple[Annotated, ...]], list[str]]:
    """Bring regions onto the frames of one series: one box a region and frame.

    A region's box on a frame is the extent of all its outlines there. An outline belongs to the
    frame whose plane is nearest, if it is nearer than half the distance between frames; where
    several frames lie in that plane (phases, echoes), to all of them.

    Args:
        regions: what was drawn.
        frames: (geometry, rows, columns) of each frame, in any order.
        minimum: boxes with an edge shorter than this many pixels are dropped and reported.

    Returns:
        The boxes of each frame, and remarks on what could not be placed.

    Raises:
        BadAnnotation: a frame without position, orientation or spacing.
    """
    placed: list[dict[str, list[NDArray[np.float64]]]] = [{} for _ in frames]
    remarks: list[str] = []
    if not frames:
        return [], ["the series has no frames"]
    planes = _Planes([geometry for geometry, _, _ in frames])
    for region in regions:
        lost = 0
        for outline in region.outlines:
            found_on = planes.nearest(outline)
            lost += not found_on
            for index in found_on:
                placed[index].setdefault(region.name, []).append(planes.pixels(index, outline))
        if lost:
            remarks.append(f"{lost} outlines of {region.name!r} lie on no frame of the series")
    boxes: list[tuple[Annotated, ...]] = []
    for (_, rows, columns), named in zip(frames, placed, strict=True):
        found = []
        for name, points in named.items():
            x1, y1, x2, y2 = _hull(np.concatenate(points))
            if x1 < -1 or y1 < -1 or x2 > columns + 1 or y2 > rows + 1:
                remarks.append(f"an outline of {name!r} leaves its frame and was clipped")
            x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, columns), min(y2, rows)
            if x2 - x1 < minimum or y2 - y1 < minimum:
                remarks.append(f"a box of {name!r} is smaller than {minimum:g} pixels")
                continue
            found.append(Annotated(name, (x1, y1, x2, y2)))
        boxes.append(tuple(found))
    return boxes, remarks


def _hull(points: NDArray[np.float64]) -> Box:
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


class _Planes:
    """The planes of a series' frames, to find an outline's frame and its pixel coordinates."""

    def __init__(self, geometries: Sequence[Geometry]) -> None:
        origins, rows, columns, spacings = [], [], [], []
        for geometry in geometries:
            if not (geometry.position and geometry.orientation and geometry.spacing):
                raise BadAnnotation("a frame has no position, orientation or pixel spacing")
            origins.append(geometry.position)
            rows.append(geometry.orientation[:3])
            columns.append(geometry.orientation[3:])
            spacings.append(geometry.spacing)
        self.origins = np.array(origins, np.float64)
        self.along_row = np.array(rows, np.float64)
        self.along_column = np.array(columns, np.float64)
        self.normals = np.cross(self.along_row, self.along_column)
        self.spacings = np.array(spacings, np.float64)
        thickness = min((g.thickness for g in geometries if g.thickness), default=1.0)
        depths = np.sort(self.origins @ self.normals[0])
        gaps = np.diff(depths)
        gaps = gaps[gaps > 1e-3]
        self.tolerance = float(np.median(gaps) if gaps.size else thickness) / 2 + 1e-3

    def nearest(self, outline: NDArray[np.float64]) -> list[int]:
        """The nearest plane; all frames on it where several show one place, as phases do."""
        centre = outline.mean(axis=0)
        distances = np.abs(np.einsum("ij,ij->i", centre - self.origins, self.normals))
        least = distances.min()
        return np.flatnonzero(distances <= min(least + 1e-3, self.tolerance)).tolist()

    def pixels(self, index: int, outline: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) x, y in pixel edges: the centre of the first pixel is (0.5, 0.5)."""
        offset = outline - self.origins[index]
        between_rows, between_columns = self.spacings[index]
        x = offset @ self.along_row[index] / between_columns
        y = offset @ self.along_column[index] / between_rows
        return np.stack([x, y], axis=1) + 0.5


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """Extent of a mask (rows, columns) in pixel edges; ``None`` when it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
