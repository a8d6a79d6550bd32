"""Data set preparation: annotations land by geometry, pixels are those of serving."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence as ItemSequence

from slicewatch import detector as detector_module
from slicewatch.annotations import (
    BadAnnotation,
    Region,
    mask_box,
    place,
    regions_of,
    yolo_boxes,
)
from slicewatch.dataset import (
    REPEATED,
    UNANNOTATED,
    Inspected,
    Labelled,
    Plan,
    Reject,
    inspect,
    render,
    split_of,
)
from slicewatch.dataset_checks import (
    Entry,
    check,
    check_label,
    check_losses,
    entry_of,
    manifest_text,
    picture_digest,
    read_manifest,
)
from slicewatch.dataset_planning import LabelMap, plan, reviewed
from slicewatch.limits import DEFAULT_LIMITS
from slicewatch.model_registry import Registry
from slicewatch.pixels import to_tensor
from slicewatch.records import Finding, FindingSlice, Geometry, Review
from slicewatch.screening import screen
from tests import studies
from tests.tiny_model import LABEL, SIZE, write_tiny_model

LABELS = LabelMap(((r"GTV.*", LABEL),))


def series_with_contours(marked: tuple[int, ...] = (4, 5)) -> tuple[list[Dataset], Dataset]:
    """A CT series whose structure set outlines 10 mm squares on the marked slices."""
    images = studies.ct_series(8, lesion=marked)
    structures = studies.rt_structure_set(references=[images[n - 1] for n in marked])
    return images, structures


def planned(images: list[Dataset], *drawings: Dataset) -> tuple[Plan, dict[str, bytes]]:
    data = {f"image{i}": studies.to_bytes(image) for i, image in enumerate(images)}
    annotations = {f"drawing{i}": studies.to_bytes(item) for i, item in enumerate(drawings)}
    objects = [inspect(name, content) for name, content in {**data, **annotations}.items()]
    return plan(objects, annotations, LABELS), data


# --- geometry -------------------------------------------------------------------------------

UNIT = st.floats(-1, 1).map(lambda v: round(v, 3))


@given(
    axis=st.tuples(UNIT, UNIT, UNIT).filter(lambda v: math.hypot(*v) > 0.3),
    angle=st.floats(0, 6.28),
    spacing=st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)),
    box=st.tuples(*[st.floats(0, 40)] * 2, *[st.floats(45, 90)] * 2),
    index=st.integers(0, 6),
)
def test_an_outline_lands_on_its_frame_in_any_orientation(
    axis: tuple[float, float, float],
    angle: float,
    spacing: tuple[float, float],
    box: tuple[float, float, float, float],
    index: int,
) -> None:
    rotation = rotation_about(np.array(axis), angle)
    row, column, normal = rotation.T
    frames = [
        (Geometry(tuple(10 + 4 * n * normal), (*row, *column), spacing), 100, 100) for n in range(7)
    ]
    x1, y1, x2, y2 = (edge - 0.5 for edge in box)  # pixel edges → indices of centres
    outline = np.array(
        [
            np.array(frames[index][0].position) + x * spacing[1] * row + y * spacing[0] * column
            for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
        ]
    )
    order = [3, 0, 6, 2, 5, 1, 4]
    placed, remarks = place([Region("GTV", (outline,))], [frames[n] for n in order])
    assert [bool(found) for found in placed] == [n == index for n in order]
    assert placed[order.index(index)][0].box == pytest.approx(box, abs=1e-3)
    assert remarks == []


def rotation_about(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(
        np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross, np.float64
    )


def test_contours_of_one_slice_make_one_box_and_strays_are_reported() -> None:
    frames = [(Geometry((0, 0, 5.0 * n), (1, 0, 0, 0, 1, 0), (1, 1)), 50, 60) for n in range(4)]

    def square(x: float, z: float) -> NDArray[np.float64]:
        return np.array([(x, 10, z), (x + 8, 10, z), (x + 8, 18, z), (x, 18, z)], np.float64)

    regions = [Region("GTV", (square(5, 10), square(30, 10), square(5, 99), square(55, 5)))]
    placed, remarks = place(regions, frames)
    assert [item.box for item in placed[2]] == [(5.5, 10.5, 38.5, 18.5)]
    assert placed[1][0].box == (55.5, 10.5, 60.0, 18.5)
    assert any("no frame" in remark for remark in remarks)
    assert any("clipped" in remark for remark in remarks)


def test_contours_are_placed_by_position_not_by_instance_number() -> None:
    images, structures = series_with_contours((4, 5))
    for number, image in enumerate(reversed(images), 1):
        image.InstanceNumber = number
    result, _ = planned([images[n] for n in (6, 3, 0, 4, 7, 1, 5, 2)], structures)
    boxes = {image.source: image.frames[0].boxes for image in result.images}
    positive = {source for source, found in boxes.items() if found}
    assert positive == {"image1", "image3"}  # where slices 4 and 5 came to stand
    left, top, right, bottom = boxes["image1"][0].box
    spacing = float(images[0].PixelSpacing[0])
    assert (right - left, bottom - top) == pytest.approx((10 / spacing, 10 / spacing))
    assert (left, top) == pytest.approx((20 / spacing + 0.5, 20 / spacing + 0.5))
    assert [image.frames[0].order for image in result.images] == list(range(8))


def test_a_segmentation_gives_the_extent_of_its_mask() -> None:
    images = studies.ct_series(4)
    mask = np.zeros((96, 80), np.uint8)
    mask[30:50, 20:45] = 1
    result, _ = planned(images, segmentation_on(images[2], mask))
    found = [image for image in result.images if image.frames[0].boxes]
    assert [image.source for image in found] == ["image2"]
    assert found[0].frames[0].boxes[0].box == pytest.approx((20, 30, 45, 50), abs=1e-3)


def segmentation_on(image: Dataset, mask: NDArray[np.uint8]) -> Dataset:
    """A binary SEG of one frame in the plane of `image`."""
    dataset = studies.segmentation()
    dataset.StudyInstanceUID = image.StudyInstanceUID
    dataset.SegmentationType = "BINARY"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *mask.shape, 1
    packed = np.packbits(mask.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    segment, group, shared = Dataset(), Dataset(), Dataset()
    segment.SegmentNumber, segment.SegmentLabel = 1, "GTV"
    dataset.SegmentSequence = ItemSequence([segment])
    for target, keyword, attributes in (
        (group, "SegmentIdentificationSequence", {"ReferencedSegmentNumber": 1}),
        (group, "PlanePositionSequence", {"ImagePositionPatient": image.ImagePositionPatient}),
        (
            shared,
            "PlaneOrientationSequence",
            {"ImageOrientationPatient": image.ImageOrientationPatient},
        ),
        (shared, "PixelMeasuresSequence", {"PixelSpacing": image.PixelSpacing}),
    ):
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(target, keyword, ItemSequence([item]))
    dataset.SharedFunctionalGroupsSequence = ItemSequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = ItemSequence([group])
    return dataset


def test_mask_box_counts_pixel_edges() -> None:
    mask = np.zeros((10, 12), np.bool_)
    assert mask_box(mask) is None
    mask[3:5, 2:9] = True
    assert mask_box(mask) == (2, 3, 9, 5)


# --- what is left out, and why --------------------------------------------------------------


def test_a_series_that_nobody_annotated_gives_no_negatives() -> None:
    images, structures = series_with_contours()
    other = studies.ct_series(3, series=2, seed=1)
    result, _ = planned([*images, *other], structures)
    assert len(result.images) == 8
    assert {reject.reason for reject in result.rejects} == {"nothing was drawn on its series"}


def test_unreadable_objects_and_repeated_instances_are_named() -> None:
    images, structures = series_with_contours()
    data = studies.to_bytes(structures)
    objects = [
        inspect("broken", b"no DICOM at all" * 20),
        inspect("report", studies.to_bytes(studies.structured_report())),
        inspect("one", studies.to_bytes(images[0])),
        inspect("again", studies.to_bytes(images[0])),
        inspect("drawing", data),
    ]
    reasons = {r.source: r.reason for r in plan(objects, {"drawing": data}, LABELS).rejects}
    assert "not a DICOM file" in reasons["broken"]
    assert "not an image" in reasons["report"]
    assert reasons["again"] == "same instance as one"


def test_a_structure_set_without_a_known_class_is_refused_with_its_structures() -> None:
    images, structures = series_with_contours()
    structures.StructureSetROISequence[0].ROIName = "Bladder"
    result, _ = planned(images, structures)
    assert result.images == ()
    assert any("structures: Bladder" in reject.reason for reject in result.rejects)


def test_a_structure_set_on_another_series_is_refused() -> None:
    images, structures = series_with_contours()
    structures.StudyInstanceUID = "2.25.1"
    result, _ = planned(images, structures)
    assert any("is not here" in reject.reason for reject in result.rejects)


@pytest.mark.parametrize("damage", ["ROIContourSequence", "StructureSetROISequence"])
def test_an_incomplete_structure_set_is_a_bad_annotation(damage: str) -> None:
    _, structures = series_with_contours()
    delattr(structures, damage)
    with pytest.raises(BadAnnotation, match="incomplete"):
        regions_of(studies.to_bytes(structures))
    with pytest.raises(BadAnnotation, match="no readable DICOM"):
        regions_of(b"\0" * 200)


@pytest.mark.parametrize(
    ("box", "label", "reason"),
    [
        ((70.0, 10.0, 95.0, 20.0), LABEL, "outside"),
        ((20.0, 10.0, 20.0, 20.0), LABEL, "empty"),
        ((10.0, 10.0, 20.0, 20.0), "bone", "class 'bone'"),
    ],
)
def test_a_box_that_cannot_be_is_refused(
    box: tuple[float, float, float, float], label: str, reason: str
) -> None:
    image = studies.ct_image()
    data = studies.to_bytes(image)
    found = inspect("image", data)
    drawn = {(str(image.SOPInstanceUID), 1): [Labelled(label, box)]}
    result = plan([found], {}, LABELS, drawn=drawn)
    with pytest.raises(BadAnnotation, match=reason):
        list(render(result.images[0], data, [LABEL], size=64, intensity="ct_soft_tissue"))


# --- one pixel path -------------------------------------------------------------------------


def test_training_sees_the_bytes_that_the_network_is_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_model(tmp_path)
    fed: list[NDArray[np.float32]] = []

    def spy(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        fed.append(to_tensor(images))
        return fed[-1]

    monkeypatch.setattr(detector_module, "to_tensor", spy)
    images, structures = series_with_contours()
    result, data = planned(images, structures)
    sources = [(name, name, lambda content=content: content) for name, content in data.items()]
    screen(sources, Registry.load(tmp_path), DEFAULT_LIMITS, threads=1)
    served = np.concatenate(fed)
    assert len(served) == len(images)
    for image in result.images:
        content = data[image.source]
        (one,) = render(image, content, [LABEL], size=SIZE, intensity="ct_soft_tissue")
        picture = np.asarray(Image.open(io.BytesIO(one.png)))
        assert np.array_equal(to_tensor([picture])[0], served[int(image.source[5:])])


def test_label_text_is_the_box_as_shares_of_the_letterboxed_picture() -> None:
    images, structures = series_with_contours((4,))
    result, data = planned(images, structures)
    image = next(image for image in result.images if image.frames[0].boxes)
    (one,) = render(image, data[image.source], [LABEL], size=64, intensity="ct_soft_tissue")
    label, *numbers = (float(word) for word in one.label_text.split())
    x1, y1, x2, y2 = image.frames[0].boxes[0].box
    scale, left = 64 / 96, (64 - round(80 * 64 / 96)) // 2
    expected = [((x1 + x2) / 2 * scale + left) / 64, (y1 + y2) / 2 * scale / 64]
    expected += [(x2 - x1) * scale / 64, (y2 - y1) * scale / 64]
    assert label == 0
    assert numbers == pytest.approx(expected, abs=1e-5)
    assert check_label(one.label_text, 1) is None


# --- reviewed findings ----------------------------------------------------------------------


def test_accepted_findings_become_boxes_and_rejected_ones_negatives() -> None:
    def finding(name: str, sop: str) -> Finding:
        where = FindingSlice(sop, 1, f"{sop}.dcm", 0.9, (1.0, 2.0, 3.0, 4.0))
        return Finding(name, LABEL, 0.9, 0.9, "series", (where,))

    review = Review.from_json(
        {
            "study_instance_uid": "1.2",
            "generation": 1,
            "status": "flagged",
            "lanes": [],
            "coverage": {"received_objects": 4, "images": 4, "screened": 4},
            "findings": [
                finding("yes", "a").to_json(),
                finding("no", "b").to_json(),
                finding("open", "c").to_json(),
                finding("no", "d").to_json(),
                finding("open", "d").to_json(),
            ],
            "integrity": [],
            "models": [],
            "policy_name": "default",
            "policy_sha256": "",
            "content_digest": "",
        }
    )
    boxes = reviewed(review, {"yes": True, "no": False})
    assert boxes == {("a", 1): [Labelled(LABEL, (1.0, 2.0, 3.0, 4.0))], ("b", 1): []}


# --- splits and checks ----------------------------------------------------------------------


def test_split_of_a_patient_never_changes() -> None:
    # The shipped models were validated on these; another hash would leak them into training.
    assert {p for p in (f"STS_{n:03d}" for n in range(1, 51)) if split_of(p) == "val"} >= {
        "STS_005",
        "STS_010",
    }
    assert split_of("STS_001") == "train"


def test_split_takes_about_the_share_that_was_asked_for() -> None:
    chosen = sum(split_of(f"patient {n}", 0.25) == "val" for n in range(4000))
    assert chosen == pytest.approx(1000, abs=100)


def test_slices_of_a_patient_share_a_split_whatever_their_study() -> None:
    one = studies.ct_image(seed=1)
    other = copy.deepcopy(one)
    other.StudyInstanceUID, other.SOPInstanceUID = "2.25.7", "2.25.8"
    found = [inspect(str(n), studies.to_bytes(item)) for n, item in enumerate((one, other))]
    assert all(isinstance(item, Inspected) for item in found)
    keys = {(item.patient, item.split) for item in found if isinstance(item, Inspected)}
    assert len(keys) == 1
    assert str(one.PatientID) not in str(found)


def entry(name: str, split: str, **others: str) -> Entry:
    values = {"patient": name, "study": name, "series": name, "order": "0", "modality": "CT"}
    values |= {"source": name, "picture_sha256": name, "classes": "0"} | others
    return Entry(name=name, split=split, **values)


def test_manifest_comes_back() -> None:
    entries = [entry("a", "train"), entry("b", "val", classes="")]
    assert read_manifest(manifest_text(entries)) == entries
    with pytest.raises(ValueError, match="lacks the columns"):
        read_manifest("name,split\na,b\n")


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([entry("a", "train", patient="p"), entry("b", "val", patient="p")], "another split"),
        ([entry("a", "train", study="s"), entry("b", "val", study="s")], "study s is in another"),
        (
            [
                entry("a", "train", patient="p", study="s"),
                entry("b", "val", patient="p", study="s"),
            ],
            "patient p is in another split too (a (a))",
        ),
        (
            [entry("a", "train", picture_sha256="x"), entry("b", "val", picture_sha256="x")],
            "same picture as a",
        ),
        ([entry("a", "train"), entry("b", "val", classes="")], "no box of class mass"),
        ([entry("a", "train")], "has no examples"),
    ],
)
def test_what_would_mislead_is_a_problem(entries: list[Entry], problem: str) -> None:
    problems = check(entries, ["mass"])
    assert len(problems) == 1
    assert problem in problems[0].reason
    assert check([entry("a", "train"), entry("b", "val")], ["mass"]) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0 0.5 0.5 0.2 0.2\n", None),
        ("", None),
        ("0 0.5 0.5 0.2\n", "line 1 is not"),
        ("0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.1 0.1\n", "line 2 has class 2"),
        ("0 0.95 0.5 0.2 0.2\n", "outside of the image"),
        ("0 0.5 0.5 0 0.2\n", "empty box"),
        ("0.5 0.5 0.5 0.1 0.2\n", "class 0.5"),
    ],
)
def test_label_files_are_checked_line_by_line(text: str, fault: str | None) -> None:
    found = check_label(text, 2)
    assert found is None if fault is None else found is not None and fault in found


def test_a_picture_of_nothing_but_margins_is_told_from_one_that_shows_something() -> None:
    images, structures = series_with_contours()
    result, data = planned(images, structures)
    (one,) = render(
        result.images[0], data[result.images[0].source], [LABEL], size=64, intensity="full_range"
    )
    digest, shows = picture_digest(one.png)
    assert shows
    assert entry_of(one).picture_sha256 == digest
    blank = io.BytesIO()
    picture = np.full((64, 64), 114, np.uint8)
    picture[10:50] = 0
    Image.fromarray(picture).save(blank, "PNG")
    assert picture_digest(blank.getvalue())[1] is False
    with pytest.raises(ValueError, match="does not decode"):
        picture_digest(b"no picture")


def test_records_of_a_plan_come_back_from_json() -> None:
    images, structures = series_with_contours()
    result, _ = planned(images, structures)
    assert Plan.from_json(result.to_json()) == result
    assert Reject.from_json(Reject("a", "b").to_json()) == Reject("a", "b")


# --- damaged objects ------------------------------------------------------------------------


@given(
    kind=st.sampled_from(("image", "contours", "segmentation")),
    damage=st.lists(st.tuples(st.integers(132, 2500), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_object_is_a_reject_whatever_the_damage(
    kind: str, damage: list[tuple[int, int]]
) -> None:
    images = studies.ct_series(2, rows=16, columns=16)
    mask = np.zeros((16, 16), np.uint8)
    mask[3:8, 3:8] = 1
    drawings = {
        "image": images[0],
        "contours": studies.rt_structure_set(references=images),
        "segmentation": segmentation_on(images[1], mask),
    }
    data = bytearray(studies.to_bytes(drawings[kind]))
    for position, value in damage:
        data[position % len(data)] = value
    found = inspect("damaged", bytes(data))
    assert isinstance(found, Inspected | Reject)
    if isinstance(found, Inspected) and found.is_annotation:
        with contextlib.suppress(BadAnnotation):
            regions_of(bytes(data))


def test_a_patient_id_that_does_not_parse_is_a_reason() -> None:
    image = studies.to_bytes(studies.ct_image())
    start = image.index(b"ISO_IR 192")
    found = inspect("image", image[:start] + b"XSO\0_R 192" + image[start + 10 :])
    assert isinstance(found, Reject)
    assert "patient's id" in found.reason


def test_a_segmentation_of_absurd_size_is_not_unpacked() -> None:
    dataset = studies.segmentation()
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 60_000, 60_000, 1
    dataset.SegmentSequence = ItemSequence([Dataset()])
    dataset.SegmentSequence[0].SegmentNumber = 1
    dataset.SegmentationType = "BINARY"
    with pytest.raises(BadAnnotation, match="more than"):
        regions_of(studies.to_bytes(dataset))


def test_yolo_labels_become_boxes_in_pixels_of_the_frame() -> None:
    (one,) = yolo_boxes("1 0.5 0.5 0.5 0.25\n", ("a", "b"), rows=80, columns=40)
    assert (one.name, one.box) == ("b", (10, 30, 30, 50))
    faults = "0 0.5 0.5 0.1", "2 0.5 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1", "nan 0 0 1 1"
    for text in (*faults, "0 0.1 0.1 0.2 0.2 0.3", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4"):
        with pytest.raises(BadAnnotation, match="line 1 is not"):
            yolo_boxes(text, ("a", "b"), 80, 40)


def test_an_outline_in_a_label_file_is_the_box_round_it() -> None:
    (one,) = yolo_boxes("0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75", ("a",), rows=80, columns=40)
    assert (one.name, one.box) == ("a", (10, 20, 30, 60))
    assert check_label("0 0.25 0.5 0.5 0.25 0.75 0.5", 1) is None
    assert check_label("0 0.25 0.5 0.5 0.25 1.75 0.5", 1) is not None


def test_sources_that_were_lost_mislead_and_unannotated_ones_do_not() -> None:
    unannotated = [Reject(f"u{n}", UNANNOTATED) for n in range(9)]
    assert check_losses([*unannotated, Reject("r", f"{REPEATED} u1"), Reject("x", "bad")], 11) == []
    problems = check_losses([Reject("x", "bad"), Reject("y", "bad")], 11)
    assert [problem.reason for problem in problems] == ["2 of 11 were lost; see what was rejected"]


def test_what_two_structure_sets_outline_alike_is_one_box() -> None:
    images = studies.ct_series(3, seed=8)
    first, again = (studies.rt_structure_set(seed=8, references=images[1:2]) for _ in range(2))
    again.SOPInstanceUID = f"{first.SOPInstanceUID}.1"
    found, _ = planned(images, first, again)
    assert [len(f.boxes) for image in found.images for f in image.frames] == [0, 1, 0]
    assert [(note.source, note.reason) for note in found.remarks] == [
        ("drawing1", "1 boxes were drawn already, and count once")
    ]


def test_frames_of_several_phases_at_one_place_all_have_its_box() -> None:
    images = studies.ct_series(3, seed=9)
    later = studies.ct_series(3, seed=9)
    for one in later:
        one.SOPInstanceUID = f"{one.SOPInstanceUID}.1"
    drawn = studies.rt_structure_set(seed=9, references=images[1:2])
    found, _ = planned([*images, *later], drawn)
    assert sorted(len(f.boxes) for image in found.images for f in image.frames) == [0] * 4 + [1] * 2
