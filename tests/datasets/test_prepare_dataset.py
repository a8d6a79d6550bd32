"""What lands in the inbox becomes a data set that training reads, and says what was left out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from slicewatch import dataset, dataset_planning, dataset_store, model_registry
from slicewatch.dataset_checks import read_manifest
from tests import studies
from tests.datasets.inbox import (
    Engine,
    Inbox,
    annotated,
    patient,
    reasons,
    two_patients,
    zipped,
)
from tests.test_dataset import segmentation_on
from tests.tiny_model import LABEL, SIZE

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "soft-tissue"


# --- from the inbox to the data set -------------------------------------------------------------


def test_an_archive_and_single_files_become_one_data_set(inbox: Inbox, seed: int) -> None:
    inbox.put("first.zip", zipped(annotated(seed)))
    for name, data in annotated(seed + 50_000, "val").items():
        inbox.put(f"second/{name}", data)
    manifest = inbox.prepared()
    assert manifest["status"] == "prepared", manifest["problems"]
    assert manifest["rejected"] == []
    assert manifest["examples"] == {
        "train": {"positive": 2, "negative": 4},
        "val": {"positive": 2, "negative": 4},
    }
    assert manifest["boxes"] == {"train": {LABEL: 2}, "val": {LABEL: 2}}
    files = inbox.files()
    assert files["dataset.yaml"].decode() == (
        f"train: images/train\nval: images/val\nnames:\n  0: {LABEL}\n"
    )
    entries = read_manifest(files["manifest.csv"].decode())
    for entry in entries:
        assert f"images/{entry.split}/{entry.name}.png" in files
        assert f"labels/{entry.split}/{entry.name}.txt" in files
    assert len(files) == 2 * len(entries) + 3
    assert inbox.work() == {}


def test_the_pictures_are_those_of_serving_byte_for_byte(inbox: Inbox, seed: int) -> None:
    sent = two_patients(seed)
    inbox.put("all.zip", zipped(sent))
    inbox.prepared()
    files = inbox.files()
    expected = {}
    annotations = {name: data for name, data in sent.items() if name.endswith("RS.dcm")}
    objects = [dataset.inspect(name, data) for name, data in sent.items()]
    labels = dataset_planning.LabelMap((("GTV", LABEL),))
    for image in dataset_planning.plan(objects, annotations, labels).images:
        data = sent[image.source]
        for one in dataset.render(image, data, [LABEL], size=SIZE, intensity="ct_soft_tissue"):
            expected[f"images/{one.split}/{one.name}.png"] = one.png
            expected[f"labels/{one.split}/{one.name}.txt"] = one.label_text.encode()
    assert {name: data for name, data in files.items() if "/" in name} == expected


def test_training_and_evaluation_read_what_was_prepared(
    inbox: Inbox, seed: int, tmp_path: Path, models: model_registry.Registry
) -> None:
    from slicewatch.detector import detector_for
    from training.cases import load_cases
    from training.fetch import fetch

    inbox.put("all.zip", zipped(two_patients(seed)))
    inbox.prepared()
    folder = tmp_path / "data"
    assert fetch(inbox.storage, inbox.name, folder) == len(inbox.files())
    detector = detector_for(models.models[0])
    cases, findings = load_cases(folder, detector, dataset_planning.LabelMap(()))
    assert findings.rejects == []
    assert len(cases) == 6
    assert sum(len(case.truth) for case in cases) == 2
    assert {case.truth[0].label for case in cases if case.truth} == {LABEL}


def test_nothing_tells_who_a_patient_is(inbox: Inbox, engine: Engine, seed: int) -> None:
    sent = annotated(seed) | {"broken.dcm": b"no DICOM"}
    named = {f"Miller^Jane/{name}": data for name, data in sent.items()}
    inbox.put("Miller-Jane.zip", zipped(named))
    inbox.put("Miller.dcm", b"no DICOM either")
    inbox.prepared()
    written = b"".join([*inbox.files().values(), *(n.encode() for n in inbox.files())])
    instance = engine.backend._instances[dataset_store.instance_id(inbox.name)]
    for text in (b"Miller", patient("train", seed).encode(), b"Test^Generated"):
        assert text not in written
        assert all(text not in event.SerializeToString() for event in instance.history)


def test_segmentations_and_label_files_are_annotations_too(inbox: Inbox, seed: int) -> None:
    images = studies.ct_series(3, seed=seed)
    mask = np.zeros((96, 80), np.uint8)
    mask[30:50, 20:45] = 1
    drawing = segmentation_on(images[1], mask)
    for one in (*images, drawing):
        one.PatientID = patient("val", seed)
    for one in (*images, drawing):
        inbox.put(f"{one.SOPInstanceUID}", studies.to_bytes(one))
    labelled = studies.ct_image(seed=seed + 1, PatientID=patient("train", seed))
    negative = studies.ct_image(seed=seed + 1, number=2, PatientID=patient("train", seed))
    unlabelled = studies.ct_image(seed=seed + 1, number=3, PatientID=patient("train", seed))
    inbox.put(
        "labelled.zip",
        zipped(
            {
                "x/1.dcm": studies.to_bytes(labelled),
                "x/1.txt": b"0 0.5 0.5 0.25 0.25\n",
                "x/2": studies.to_bytes(negative),
                "x/2.txt": b"",
                "x/3.dcm": studies.to_bytes(unlabelled),
            }
        ),
    )
    manifest = inbox.prepared()
    assert manifest["examples"] == {
        "train": {"positive": 1, "negative": 1},
        "val": {"positive": 1, "negative": 2},
    }
    assert reasons(manifest) == ["nothing was drawn on its series"]
    assert manifest["status"] == "prepared"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_real_patients_become_examples(inbox: Inbox) -> None:
    for name in ("STS_001", "STS_005"):
        folder = SHARED / name / "CT"
        drawing, *rest = sorted(folder.rglob("*.dcm"), key=lambda path: path.name != "RS.dcm")
        middle = len(rest) // 2
        chosen = [drawing, *rest[middle - 5 : middle + 5]]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in chosen}
        inbox.put(f"{name}.zip", zipped(files))
    manifest = inbox.prepared()
    assert manifest["status"] == "prepared", manifest["problems"]
    assert manifest["patients"] == {"train": 1, "val": 1}
    assert manifest["rejected"] == []
    assert {split: sum(one.values()) for split, one in manifest["examples"].items()} == {
        "train": 10,
        "val": 10,
    }
    assert all(one["positive"] > 3 for one in manifest["examples"].values())


# --- bad input ----------------------------------------------------------------------------------


def test_each_reject_has_its_file_and_reason_and_the_rest_is_prepared(
    inbox: Inbox, seed: int
) -> None:
    good = two_patients(seed)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("1.dcm", bytes(80 << 20))
    stranger = studies.ct_series(2, seed=seed + 2)
    inbox.put(
        "good.zip",
        zipped(
            good
            | {
                "../../escape.dcm": b"x",
                "inner.zip.dcm": zipped({"a": b"b"}),
                "README.md": b"no object, and none was promised",
                "a/again.dcm": good["a/1.dcm"],
                **{f"c/{n}.dcm": studies.to_bytes(one) for n, one in enumerate(stranger)},
            }
        ),
    )
    inbox.put("bomb.zip", bomb.getvalue())
    inbox.put("cut.zip", zipped(good)[:-50])
    inbox.put("broken.dcm", b"no DICOM")
    inbox.put("hidden-archive", zipped({"a.dcm": b"b"}))
    manifest = inbox.prepared()
    assert sum(sum(one.values()) for one in manifest["examples"].values()) == 12
    rejected = {(one.get("file", ""), one.get("entry")): one["reason"] for one in listed(inbox)}
    inside = f"inbox/{inbox.name}"
    assert "not a DICOM file" in rejected[f"{inside}/broken.dcm", None]
    assert "does not end in .zip" in rejected[f"{inside}/hidden-archive", None]
    assert "times its size" in rejected[f"{inside}/bomb.zip", None]
    assert "damaged" in rejected[f"{inside}/cut.zip", None]
    entries = [reason for (file, entry), reason in rejected.items() if entry]
    assert any("leads out of the archive" in reason for reason in entries)
    assert any("archive inside the archive" in reason for reason in entries)
    assert any("same instance as" in reason for reason in entries)
    assert entries.count("nothing was drawn on its series") == 2
    assert len(rejected) == len(manifest["rejected"]) == 9
    # 6 of 23 sources were lost for other reasons than that nobody drew on them.
    assert manifest["status"] == "misleading"
    assert manifest["problems"] == [
        f"sources: 6 of {manifest['sources']} were lost; see what was rejected"
    ]


def listed(inbox: Inbox) -> list[dict[str, str]]:
    found: list[dict[str, str]] = inbox.status()["manifest"]["rejected"]
    return found


def test_a_data_set_that_would_mislead_says_so(inbox: Inbox, seed: int) -> None:
    same = studies.ct_series(3, seed=seed, lesion=(2,))
    for split in ("train", "val"):
        for one in same:
            one.PatientID = patient(split, seed)
            one.StudyInstanceUID = studies.new_uid(split, seed)
            one.SeriesInstanceUID = studies.new_uid(split, seed, "series")
            one.SOPInstanceUID = studies.new_uid(split, seed, one.InstanceNumber)
        drawing = studies.rt_structure_set(seed=seed, references=[same[1]])
        drawing.StudyInstanceUID = same[0].StudyInstanceUID
        drawing.SOPInstanceUID = studies.new_uid(split, seed, "drawing")
        drawing.PatientID = patient(split, seed)
        for one in (*same, drawing):
            inbox.put(f"{split}/{one.SOPInstanceUID}.dcm", studies.to_bytes(one))
    manifest = inbox.prepared()
    assert manifest["status"] == inbox.status()["status"] == "misleading"
    assert len(manifest["problems"]) == 3
    assert all("same picture as" in problem for problem in manifest["problems"])


def test_one_patient_alone_misleads(inbox: Inbox, seed: int) -> None:
    for name, data in annotated(seed).items():
        inbox.put(name, data)
    manifest = inbox.prepared()
    assert manifest["status"] == "misleading"
    assert manifest["problems"] == ["split val: has no examples"]


def test_a_box_outside_of_its_image_is_named_with_its_file(inbox: Inbox, seed: int) -> None:
    blob = inbox.put("1.dcm", studies.to_bytes(studies.ct_image(seed=seed)))
    inbox.put("1.txt", b"0 0.9 0.5 0.6 0.2\n")
    manifest = inbox.prepared()
    assert manifest["status"] == "misleading"
    (reject,) = listed(inbox)
    assert reject["file"] == blob
    assert "lies outside of its frame" in reject["reason"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"size = [", "dataset.toml is no TOML"),
        (b"sizes = 64", "unknown key 'sizes'"),
        (b'model = "no-such"', "none of the registry's: tiny-bright"),
        (b"#" * 100_000, "at most 65536 are read"),
    ],
)
def test_a_description_that_cannot_be_used_refuses_the_data_set(
    inbox: Inbox, seed: int, text: bytes, cause: str
) -> None:
    for name, data in annotated(seed).items():
        inbox.put(name, data)
    inbox.put("dataset.toml", text)
    manifest = inbox.prepared()
    assert manifest["status"] == inbox.status()["status"] == "refused"
    assert cause in manifest["problems"][0]
    assert "dataset.yaml" not in inbox.files()


def test_series_that_no_model_is_for_ask_for_a_description(inbox: Inbox, seed: int) -> None:
    sent = {
        name: studies.to_bytes(alter(data, Modality="PT"))
        for name, data in two_patients(seed).items()
        if not name.endswith("RS.dcm")
    }
    inbox.put("all.zip", zipped(sent))
    manifest = inbox.prepared()
    assert manifest["status"] == "refused"
    assert "no model of the registry is for these series" in manifest["problems"][0]


def alter(data: bytes, **attributes: Any) -> Dataset:
    found = dcmread(io.BytesIO(data))
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


def test_a_description_makes_a_data_set_for_a_detector_that_is_not_there_yet(
    inbox: Inbox, seed: int
) -> None:
    inbox.put("all.zip", zipped(two_patients(seed)))
    inbox.put(
        "dataset.toml",
        b'classes = ["sarcoma"]\nsize = 96\n[intensities]\n"*" = "ct_soft_tissue"\n'
        b'[labels]\n"gt?" = "sarcoma"\n',
    )
    manifest = inbox.prepared()
    assert manifest["status"] == "prepared", manifest["problems"]
    assert manifest["boxes"]["train"] == {"sarcoma": 2}
    picture = next(data for name, data in inbox.files().items() if name.endswith(".png"))
    assert picture[16:24] == (96).to_bytes(4) * 2  # IHDR: width, height


# --- fetching -----------------------------------------------------------------------------------


def test_fetching_says_whether_the_data_set_would_mislead(
    inbox: Inbox, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.__main__ import main

    for name, data in annotated(seed).items():
        inbox.put(name, data)
    command = ["fetch", inbox.name, "--out", str(tmp_path / "data")]
    assert main(command) == 2
    assert "is not prepared" in capsys.readouterr().err
    inbox.prepared()
    assert main(command) == 1
    assert "misleading: split val: has no examples" in capsys.readouterr().out
    assert main(command) == 2
    assert "is not empty" in capsys.readouterr().err
