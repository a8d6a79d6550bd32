"""The objects that are made of a review: legal by validators that nobody here wrote, and true."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.sr.codedict import codes

from slicewatch import inventory
from slicewatch.records import IntegrityIssue, Lane
from slicewatch.reporting import regions, stored, uids
from slicewatch.settings import Settings
from slicewatch.storage import REVIEWS, Storage
from tests import studies
from tests.reporting.reviewed import ASSESSED, BOX, MODEL, READER, Reported, Where, marked, reported

for tool, package in {"dciodvfy": "dicom3tools", "dsrdump": "dcmtk", "dcmpschk": "dcmtk"}.items():
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed: the package {package}", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:highdicom.*")


# --- legal --------------------------------------------------------------------------------------


def validate(files: dict[str, bytes], folder: Path) -> None:
    """No error by dciodvfy, dsrdump and dcmpschk."""
    for name, data in files.items():
        path = folder / name
        path.write_bytes(data)
        found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        said = found.stdout + found.stderr
        assert "Comprehensive3DSR" in said or "GrayscaleSoftcopyPresentationState" in said
        assert [line for line in said.splitlines() if line.startswith(("Error", "Abort"))] == []
        if name.startswith("pr-") and not str(pydicom.dcmread(path).PatientName).isascii():
            continue  # dcmpschk takes every character beyond ASCII for a fault of its VR
        checker = ["dcmpschk"] if name.startswith("pr-") else ["dsrdump", "-v"]
        told = subprocess.run([*checker, str(path)], capture_output=True, text=True, check=False)
        assert told.returncode == 0 or "Test passed" in told.stderr, told.stderr
        assert "\nE:" not in told.stderr, told.stderr
        assert "\nF:" not in told.stderr, told.stderr


def _volume(seed: int) -> tuple[list[Dataset], Where]:
    return studies.ct_series(8, seed=seed), marked(range(2, 6))


def _names(seed: int) -> tuple[list[Dataset], Where]:
    series = studies.ct_series(3, seed=seed)
    for one in series:
        one.PatientName, one.PatientSex, one.PatientBirthDate = "Ümlaut^Ôve=山田^太郎", "X", "1970"
        one.StudyID, one.AccessionNumber = "far too long for an SH value", "ACC^1"
        one.StudyDescription = "two\nlines"
        one.PatientAge, one.PatientWeight = "old", "70"
    return series, marked([1])


def _two_series(seed: int) -> tuple[list[Dataset], Where]:
    ct = studies.ct_series(3, seed=seed)
    mr = [studies.mr_image(seed=seed, number=n) for n in range(1, 4)]
    for one in mr:
        one.StudyInstanceUID = ct[0].StudyInstanceUID
    return [*ct, *mr], marked([0, 1, 4], box=(4, 4, 12, 12))


def _rescalings(seed: int) -> tuple[list[Dataset], Where]:
    series = studies.ct_series(4, seed=seed, Modality="PT")
    for number, one in enumerate(series, start=1):
        one.RescaleSlope, one.RescaleType = str(1.5 * number), "BQML"
    return series, marked(range(4))


CASES: dict[str, tuple[Callable[[int], tuple[list[Dataset], Where]], int]] = {
    "a volume": (_volume, 1),
    "odd names": (_names, 1),
    "CT and MR": (_two_series, 2),
    "a rescaling a slice": (_rescalings, 4),
    "no finding": (lambda seed: (studies.ct_series(3, seed=seed), {}), 0),
    "several frames, a rescaling each": (
        lambda seed: (
            [studies.enhanced_image(5, seed=seed)],
            {(0, n): [("mass", 0.5 + n / 10, (2.0, 3.0, 20.0, 30.0))] for n in (2, 3)},
        ),
        2,
    ),
    "frames without functional groups": (
        lambda seed: (
            [studies.ultrasound_loop(4, seed=seed)],
            {(0, 2): [("mass", 0.5, (2.0, 3.0, 20.0, 20.0))]},
        ),
        1,
    ),
    "an inverted radiograph": (
        lambda seed: ([studies.cr_image(seed=seed)], marked([0], box=(1, 1, 9, 9))),
        1,
    ),
    "a colour capture": (
        lambda seed: ([studies.rgb_image(seed=seed)], marked([0], box=(1, 1, 9, 9))),
        0,
    ),
    "no image at all": (lambda seed: ([studies.rt_structure_set(seed=seed)], {}), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_study_gets_what_is_legal_for_it(
    case: str, storage: Storage, settings: Settings, seed: int, tmp_path: Path
) -> None:
    make, states = CASES[case]
    study = reported(storage, settings, *make(seed))
    study.make()
    files = study.files
    assert sorted(files) == [*(f"pr-{n}.dcm" for n in range(1, states + 1)), "sr.dcm"]
    validate(files, tmp_path)


def test_what_is_made_of_real_images_is_legal(
    storage: Storage, settings: Settings, tmp_path: Path
) -> None:
    folder = Path(__file__).parents[3] / "shared/data/soft-tissue/STS_001"
    if not folder.exists():
        pytest.skip("needs the soft-tissue data set (../shared/data)")
    paths = [
        path for kind in ("CT", "MR_T1") for path in sorted((folder / kind / "image").iterdir())
    ]
    objects = [pydicom.dcmread(path) for path in [*paths[:4], *paths[-4:]]]
    study = reported(storage, settings, objects, marked([1, 2, 5, 6], box=(10, 10, 60, 70)))
    study.make()
    assert sorted(study.files) == ["pr-1.dcm", "pr-2.dcm", "sr.dcm"]
    validate(study.files, tmp_path)


# --- the same again -----------------------------------------------------------------------------


def test_made_anew_the_objects_have_the_same_uids_and_the_same_bytes(
    storage: Storage, settings: Settings, seed: int
) -> None:
    study = reported(storage, settings, *_two_series(seed))
    study.make()
    before = study.files
    for name in before:
        storage.delete(REVIEWS, stored.name(study.study, 1, name))
    assert study.files == {}
    study.make()
    assert study.files == before


def test_what_is_there_already_is_left_as_it_is(
    storage: Storage, settings: Settings, seed: int
) -> None:
    study = reported(storage, settings, *_volume(seed))
    study.make()
    name = stored.name(study.study, 1, "sr.dcm")
    first = storage.info(REVIEWS, name)
    study.make()
    again = storage.info(REVIEWS, name)
    assert first is not None
    assert again is not None
    assert first.etag == again.etag


def test_times_are_those_of_the_review(storage: Storage, settings: Settings, seed: int) -> None:
    study = reported(storage, settings, *_volume(seed))
    study.make()
    for data in study.files.values():
        dataset = pydicom.dcmread(io.BytesIO(data))
        date = dataset.get("ContentDate") or dataset.PresentationCreationDate
        time = dataset.get("ContentTime") or dataset.PresentationCreationTime
        assert (str(date), str(time)) == ("20260102", "030405.678901")
        assert str(dataset.InstanceCreationDate) == "20260102"


# --- what they say ------------------------------------------------------------------------------


def read_report(data: bytes) -> hd.sr.Comprehensive3DSR:
    dataset = pydicom.dcmread(io.BytesIO(data))
    return hd.sr.Comprehensive3DSR.from_dataset(dataset)


def content_of(report: hd.sr.Comprehensive3DSR) -> Any:
    """The tree, a "Measurement Report" of TID 1500. The package's types of its parts are wrong."""
    content: Any = report.content
    assert isinstance(content, hd.sr.MeasurementReport)
    return content


def texts(report: Dataset) -> list[str]:
    """All texts and code meanings of a tree, in order."""
    found = []
    for item in report.get("ContentSequence", ()):
        found += [str(item.TextValue)] if "TextValue" in item else []
        found += [
            str(one.CodeValue) for one in item.get("ConceptCodeSequence", ()) if "CodeValue" in one
        ]
        found += texts(item)
    return found


def test_a_finding_over_several_planes_is_one_volume_with_a_region_a_slice(
    storage: Storage, settings: Settings, seed: int
) -> None:
    objects, where = _volume(seed)
    study = reported(storage, settings, objects, where)
    study.make()
    content = content_of(read_report(study.files["sr.dcm"]))
    (group,) = content.get_volumetric_roi_measurement_groups()
    assert content.get_planar_roi_measurement_groups() == []
    (finding,) = study.review.findings
    assert group.tracking_uid == uids.of_finding(study.study, finding.id)
    assert group.finding_type == codes.SCT.Mass
    assert [one.value for one in group.get_measurements()] == [87.5, 87.5]
    on = [region.ContentSequence[0].ReferencedSOPSequence[0] for region in group.roi]
    assert [one.ReferencedSOPInstanceUID for one in on] == [o.SOPInstanceUID for o in objects[2:6]]
    x1, y1, x2, y2 = BOX
    outline = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
    assert all(np.array_equal(region.value, outline) for region in group.roi)
    said = texts(content[0])
    assert MODEL.name in said
    assert MODEL.version in said
    assert f"weights SHA-256 {MODEL.sha256}" in said


def test_without_geometry_each_frame_is_a_planar_region_of_the_same_finding(
    storage: Storage, settings: Settings, seed: int
) -> None:
    box = (2.0, 3.0, 20.0, 20.0)
    where = {(0, n): [("odd label", 0.5, box)] for n in (2, 3)}
    study = reported(storage, settings, [studies.ultrasound_loop(4, seed=seed)], where)
    study.make()
    content = content_of(read_report(study.files["sr.dcm"]))
    groups = content.get_planar_roi_measurement_groups()
    assert len({group.tracking_uid for group in groups}) == 1
    frames = [
        group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber
        for group in groups
    ]
    assert frames == [2, 3]
    assert groups[0].finding_type.value == "odd label"
    assert groups[0].finding_type.scheme_designator == "99SLICEWATCH"


def test_a_report_says_what_it_is_not_for_and_what_was_not_screened(
    storage: Storage, settings: Settings, seed: int
) -> None:
    objects = [*studies.ct_series(3, seed=seed), studies.structured_report(seed=seed)]
    study = reported(storage, settings, objects, marked([1]))
    study.make()
    report = read_report(study.files["sr.dcm"])
    assert (report.CompletionFlag, report.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert (report.PreliminaryFlag, report.ContentQualification) == ("PRELIMINARY", "RESEARCH")
    assert "not for clinical use" in report.SeriesDescription
    said = "\n".join(texts(report))
    assert "Not for clinical use" in said
    assert "3 of 3 images were screened; 4 objects were received" in said
    assert 'No flag is not "normal"' in said
    assert "1 not screened: not an image object" in said
    assert "1 announced by the sender and never received" in said
    state = pydicom.dcmread(io.BytesIO(study.files["pr-1.dcm"]))
    assert "not for clinical use" in state.SeriesDescription
    assert state.ContentQualification == "RESEARCH"


def test_patient_and_study_are_those_of_the_originals(
    storage: Storage, settings: Settings, seed: int
) -> None:
    objects, where = _names(seed)
    study = reported(storage, settings, objects, where)
    study.make()
    for data in study.files.values():
        dataset = pydicom.dcmread(io.BytesIO(data))
        assert dataset.PatientName == objects[0].PatientName
        assert dataset.PatientID == objects[0].PatientID
        assert dataset.AccessionNumber == "ACC^1"
        assert dataset.StudyInstanceUID == study.study
        assert dataset.StudyDate == objects[0].StudyDate
        # What breaks its VR is left out, or empty where the standard wants the attribute.
        assert (dataset.PatientSex, dataset.PatientBirthDate, dataset.StudyID) == ("", "", "")
        assert "StudyDescription" not in dataset
        assert dataset.PatientWeight == 70


def test_the_forensic_lane_leaves_no_trace(storage: Storage, settings: Settings, seed: int) -> None:
    issue = IntegrityIssue("copied-slices", "error", "Two slices have the same pixels.")
    objects = studies.ct_series(3, seed=seed)
    study = reported(storage, settings, objects, {}, lanes=[Lane.FORENSIC], issues=[issue])
    (item,) = study.publish()
    study.make()
    study.decide(item, {"verdict": "confirmed", "findings": {}, "comment": "tampered"})
    study.make()
    assert list(study.files) == ["sr.dcm"]
    said = "\n".join(texts(read_report(study.files["sr.dcm"])))
    assert "FLAGGED" not in said
    assert "INCOMPLETE" in said  # an announced instance never came
    for word in ("forensic", issue.code, issue.explanation, "tampered"):
        assert word not in said.lower()


# --- decisions ----------------------------------------------------------------------------------


def test_a_decision_is_told_with_its_reader_verdicts_and_drawn_boxes(
    storage: Storage, settings: Settings, seed: int, tmp_path: Path
) -> None:
    objects = studies.ct_series(6, seed=seed)
    where = {**marked([1, 2]), (4, 1): [("soft_tissue_mass", 0.5, (2.0, 2.0, 9.0, 9.0))]}
    study = reported(storage, settings, objects, where)
    first, second = study.review.findings
    (item,) = study.publish()
    study.make()

    def drawn(index: int) -> list[dict[str, object]]:
        instance = objects[index].SOPInstanceUID
        return [{"sop_instance_uid": instance, "frame": 1, "box": [5, 6, 15, 16]}]

    study.decide(
        item,
        {
            "verdict": "changed",
            "findings": {
                first.id: {"verdict": "changed", "boxes": drawn(1), "comment": "smaller"},
                second.id: {"verdict": "rejected"},
            },
            "additions": [
                {"id": "added-1", "label": "lesion", "boxes": drawn(5), "comment": "new"}
            ],
            "comment": "<b>seen</b>",
        },
    )
    study.make()
    assert sorted(study.files) == ["pr-1.dcm", "sr-decided-1.dcm", "sr.dcm"]
    validate(study.files, tmp_path)
    report = read_report(study.files["sr-decided-1.dcm"])
    assert (report.CompletionFlag, report.PreliminaryFlag) == ("COMPLETE", "FINAL")
    assert report.VerificationFlag == "UNVERIFIED"
    before = read_report(study.files["sr.dcm"])
    replaced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert report.SeriesInstanceUID == before.SeriesInstanceUID

    content = content_of(report)
    (person,) = content.get_observer_contexts(observer_type=codes.DCM.Person)
    assert person.observer_identifying_attributes.name == f"{READER.name}^"
    (volume,) = content.get_volumetric_roi_measurement_groups()
    verdicts = [one.value.value for one in volume.get_qualitative_evaluations()]
    assert verdicts == ["CHANGED"]
    planar = content.get_planar_roi_measurement_groups()
    by_tracking = {one.tracking_uid: one for one in planar}
    changed = by_tracking[uids.of_finding(study.study, first.id)]
    rejected = by_tracking[uids.of_finding(study.study, second.id)]
    assert np.array_equal(changed.roi.value[0], (5, 6))
    assert [one.value.value for one in rejected.get_qualitative_evaluations()] == ["REJECTED"]
    (added,) = (one for one in planar if one not in (changed, rejected))
    assert added.finding_type == codes.SCT.Lesion
    assert "READER" in [one.value.value for one in added.get_qualitative_evaluations()]
    said = texts(report)
    assert {"smaller", "new", "<b>seen</b>"} <= set(said)


def test_a_correction_follows_the_decision_that_it_corrects(
    storage: Storage, settings: Settings, seed: int
) -> None:
    from slicewatch import corrections

    study = reported(storage, settings, *_volume(seed))
    (item,) = study.publish()
    study.decide(item, {"verdict": "confirmed", "findings": {}, "comment": ""})
    study.make()
    said = {"verdict": "rejected", "findings": {}, "comment": ""}
    corrections.correct(storage, item.id, READER, said, "wrong patient position")
    study.make()
    assert sorted(study.files) == ["pr-1.dcm", "sr-decided-1.dcm", "sr-decided-2.dcm", "sr.dcm"]
    decided = read_report(study.files["sr-decided-1.dcm"])
    corrected = read_report(study.files["sr-decided-2.dcm"])
    replaced = corrected.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert replaced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == decided.SOPInstanceUID
    assert {"wrong patient position", "REJECTED"} <= set(texts(corrected))


# --- presentation states ------------------------------------------------------------------------


def test_each_slice_has_its_own_boxes_in_the_presentation_state(
    storage: Storage, settings: Settings, seed: int
) -> None:
    objects = studies.ct_series(4, seed=seed)
    where = {(n, 1): [("mass", 0.5, (n + 1.0, 2.0, n + 20.0, 30.0))] for n in range(4)}
    study = reported(storage, settings, objects, where)
    study.make()
    state = pydicom.dcmread(io.BytesIO(study.files["pr-1.dcm"]))
    boxes = {
        one.ReferencedImageSequence[0].ReferencedSOPInstanceUID: list(
            one.GraphicObjectSequence[0].GraphicData[:2]
        )
        for one in state.GraphicAnnotationSequence
    }
    assert boxes == {one.SOPInstanceUID: [n + 1.0, 2.0] for n, one in enumerate(objects)}
    named = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert {one.ReferencedSOPInstanceUID for one in named} == set(boxes)


def test_dcmtk_renders_an_image_under_its_presentation_state_with_the_lesion_in_the_box(
    storage: Storage, settings: Settings, seed: int, tmp_path: Path
) -> None:
    # The lesion is the only thing brighter than the window of 40/400.
    objects = studies.ct_series(3, seed=seed, lesion=[2])
    (pixels,) = studies.native_frames(objects[1])
    bright = np.argwhere(pixels > 200)
    (y1, x1), (y2, x2) = bright.min(axis=0), bright.max(axis=0) + 1
    where = marked([1], box=(float(x1), float(y1), float(x2), float(y2)))
    study = reported(storage, settings, objects, where)
    study.make()
    (tmp_path / "pr.dcm").write_bytes(study.files["pr-1.dcm"])
    (tmp_path / "image.dcm").write_bytes(studies.to_bytes(objects[1]))
    subprocess.run(["dcmp2pgm", "-p", "pr.dcm", "image.dcm", "out.pgm"], cwd=tmp_path, check=True)
    shown = np.asarray(Image.open(tmp_path / "out.pgm"))
    assert shown.shape == pixels.shape
    white = np.argwhere(shown > 230)  # noise lies on it, and on the tissue at 127
    state = pydicom.dcmread(tmp_path / "pr.dcm")
    outline = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicData
    left, top, right, bottom = outline[0], outline[1], outline[2], outline[5]
    inside = (white[:, 1] >= left) & (white[:, 1] < right) & (white[:, 0] >= top)
    inside &= white[:, 0] < bottom
    assert inside.mean() > 0.99
    assert len(white) > 0.4 * (right - left) * (bottom - top)


# --- bounds -------------------------------------------------------------------------------------


def test_a_sick_model_makes_a_bounded_report_that_says_so(
    storage: Storage, settings: Settings, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "MAX_REGIONS", 5)
    boxes = [
        ("mass", 0.3, (float(x), float(y), x + 3.0, y + 3.0))
        for x in range(0, 60, 20)
        for y in range(0, 60, 20)
    ]
    study = reported(storage, settings, [studies.ct_image(seed=seed)], {(0, 1): boxes})
    outcome = study.make()
    content = content_of(read_report(study.files["sr.dcm"]))
    assert len(content.get_planar_roi_measurement_groups()) <= 5
    assert any("boxes beyond" in remark for remark in outcome.remarks)
    assert any("boxes beyond" in text for text in texts(content[0]))


def test_boxes_on_what_cannot_be_shown_are_left_out_and_said(
    storage: Storage, settings: Settings, seed: int
) -> None:
    odd = studies.ct_image(seed=seed, number=2, SOPClassUID="1.2.840.999.1.2.3")
    objects = [studies.ct_image(seed=seed, number=1), odd]
    study = reported(storage, settings, objects, marked([0, 1]))
    outcome = study.make()
    content = read_report(study.files["sr.dcm"]).content
    assert any("cannot be referred to" in text for text in texts(content[0]))
    assert any("cannot be referred to" in remark for remark in outcome.remarks)
    state = pydicom.dcmread(io.BytesIO(study.files["pr-1.dcm"]))
    assert len(state.GraphicAnnotationSequence) == 1


def test_the_review_is_not_changed_by_its_report(
    storage: Storage, settings: Settings, seed: int
) -> None:
    study: Reported = reported(storage, settings, *_volume(seed))
    study.make()
    assert inventory.read_review(storage, study.study, 1) == study.review
    assert study.review.timings["assessed"] == ASSESSED
