"""``python -m training evaluate`` on data that somebody else laid out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import studies
from tests.tiny_model import LABEL, write_tiny_model
from training.__main__ import main
from training.layout import is_layout

EDGE = 64
BOX = (16, 20, 32, 30)


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def picture(*, seed: int = 0, box: bool = True, deep: bool = False) -> bytes:
    """A gray noise with a bright box; `deep`: in 16 bits."""
    gray = np.random.default_rng(seed).integers(20, 90, (EDGE, EDGE)).astype(np.uint16)
    if box:
        x1, y1, x2, y2 = BOX
        gray[y1:y2, x1:x2] = 255
    out = io.BytesIO()
    Image.fromarray(gray * 150 if deep else gray.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def label(index: int = 0) -> str:
    x1, y1, x2, y2 = (edge / EDGE for edge in BOX)
    return f"{index} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}\n\n"


def put(folder: Path, name: str, content: bytes | str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def evaluate(toml: Path, data: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and figures; no figures where there are none."""
    out = toml.parent / "figures.json"
    out.unlink(missing_ok=True)
    command = ["evaluate", str(toml), str(data), "--rounds", "3", "--threads", "1"]
    code = main([*command, "--json", str(out), *arguments])
    return code, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("images/val", "labels/val"),
        ("images/val/patient7/visit1", "labels/val/patient7/visit1"),
        ("val/images", "val/labels"),
        ("valid/images", "valid/labels"),
        ("images", "labels"),
        ("images/val", "images/val"),
    ],
)
def test_pictures_and_labels_are_found_where_others_put_them(
    toml: Path, tmp_path: Path, pictures: str, labels: str
) -> None:
    put(tmp_path, f"{pictures}/a.PNG", picture())
    put(tmp_path, f"{labels}/a.txt", label())
    put(tmp_path, f"{pictures}/b.png", picture(seed=1, box=False))
    put(tmp_path, f"{pictures}/Thumbs.db", b"no picture")
    code, figures = evaluate(toml, tmp_path)
    assert (code, figures["slices"], figures["rejected_sources"]) == (0, 2, 0)
    assert figures["map50"] == pytest.approx(1, abs=0.01)


def test_folders_below_a_split_are_patients(toml: Path, tmp_path: Path) -> None:
    for patient in ("7", "8"):
        for name in ("1", "2"):
            put(tmp_path, f"images/test/{patient}/{name}.png", picture())
            put(tmp_path, f"labels/test/{patient}/{name}.txt", label())
    code, figures = evaluate(toml, tmp_path, "--split", "test")
    assert (code, figures["slices"], figures["patients"], figures["studies"]) == (0, 4, 2, 2)


def test_sixteen_bits_are_stretched_as_a_single_image_is(toml: Path, tmp_path: Path) -> None:
    put(tmp_path, "images/val/a.png", picture(deep=True))
    put(tmp_path, "labels/val/a.txt", label())
    assert evaluate(toml, tmp_path)[1]["map50"] == pytest.approx(1, abs=0.01)


def test_a_split_that_is_not_there_is_told_with_those_that_are(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "images/test/a.png", picture())
    put(tmp_path, "labels/test/a.txt", label())
    assert evaluate(toml, tmp_path)[0] == 2
    assert "splits here: test" in capsys.readouterr().err


def test_pictures_without_any_label_file_are_no_negatives(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "images/val/a.png", picture())
    assert evaluate(toml, tmp_path)[0] == 2
    assert "label file" in capsys.readouterr().err


def test_what_is_left_out_is_named_and_too_much_of_it_misleads(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults: dict[str, str | bytes] = {
        "outside": "0 0.9 0.5 0.4 0.1",
        "endless": "inf 0.5 0.5 0.1 0.1",
        "half a polygon": "0 0.1 0.1 0.2 0.2 0.3",
        "class9": "9 0.5 0.5 0.1 0.1",
        "bytes": b"\xff\xfe\x00",
    }
    for name, text in faults.items():
        put(tmp_path, f"images/val/{name}.png", picture())
        put(tmp_path, f"labels/val/{name}.txt", text)
    put(tmp_path, "images/val/cut.png", picture()[:200])
    put(tmp_path, "labels/val/cut.txt", label())
    put(tmp_path, "images/val/good.png", picture())
    put(tmp_path, "labels/val/good.txt", label())
    code, figures = evaluate(toml, tmp_path)
    assert (code, figures["slices"], figures["rejected_sources"]) == (1, 1, 6)
    told = capsys.readouterr().err
    for name in (*faults, "cut"):
        assert f"{name}.png" in told
    assert "6 of 7 were lost" in told


def test_a_manifest_of_others_is_left_alone(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "images/val/a.png", picture())
    put(tmp_path, "labels/val/a.txt", label())
    put(tmp_path, "manifest.csv", "file,patient\na.png,7\n")
    assert evaluate(toml, tmp_path)[0] == 0
    assert "manifest.csv" in capsys.readouterr().err


def test_a_prepared_set_with_one_split_and_one_class_alone_can_be_measured_on(
    toml: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dicom"
    write_series(folder, 3)
    command = ["prepare", "soft-tissue", "--dicom", str(folder), "--validation-share", "0.999999"]
    assert main([*command, "--out", str(tmp_path / "data")]) == 1  # nothing to train on
    code, figures = evaluate(toml, tmp_path / "data", "--label", f"soft_tissue_mass={LABEL}")
    # Without names of its own it would be measured by index; here the names differ.
    assert (code, figures["slices"], figures["studies_with_lesion"]) == (0, 6, 1)


def test_pictures_with_masks_are_measured_on_as_they_are(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((EDGE, EDGE), np.uint8)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    rows = ["sample_id,patient_id,class"]
    for n, kind in enumerate(("Bright region", "bright-region", "other")):
        image = Image.open(io.BytesIO(picture(seed=n)))
        image.save(tmp_path / "images" / f"{n}.jpg", quality=95)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{n}.jpg", quality=95)
        rows.append(f"{n},p{n},{kind}")
    put(tmp_path, "index.csv", "\n".join(rows))
    code, figures = evaluate(toml, tmp_path)
    assert (code, figures["slices"], figures["patients"]) == (1, 2, 2)
    assert figures["map50"] == pytest.approx(1, abs=0.01)
    assert "no class other: images/2.jpg" in capsys.readouterr().err


@pytest.mark.training
@pytest.mark.parametrize("names", [["nodule", LABEL], {0: "nodule", 1: "Bright Region"}])
def test_a_description_says_where_pictures_are_and_what_an_index_means(
    toml: Path, tmp_path: Path, names: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "d/data.yaml", json.dumps({"val": "../held/out", "names": names, "nc": 2}))
    for n in range(20):
        put(tmp_path, f"d/held/out/{n}.png", picture(seed=n))
        put(tmp_path, f"d/held/out/{n}.txt", label(1))
    put(tmp_path, "d/held/out/other.png", picture(seed=99))
    put(tmp_path, "d/held/out/other.txt", label(0))
    for data in (tmp_path / "d", tmp_path / "d" / "data.yaml"):
        code, figures = evaluate(toml, data)
        assert (code, figures["slices"]) == (0, 20)
        assert figures["map50"] == pytest.approx(1, abs=0.01)
        assert "no class nodule: held/out/other.png" in capsys.readouterr().err
    code, figures = evaluate(toml, tmp_path / "d", "--label", f"nod*={LABEL}")
    assert (code, figures["slices"], figures["rejected_sources"]) == (0, 21, 0)


# --- DICOM --------------------------------------------------------------------------------------


def write_series(folder: Path, seed: int, *, name: str = "", structures: bool = True) -> None:
    """Files named by their UIDs alone, the structure set in a folder of its own."""
    images = studies.ct_series(6, seed=seed, lesion=(3, 4))
    for image in images:
        put(folder, f"a/b/{image.SOPInstanceUID}", studies.to_bytes(image))
    if structures:
        drawn = studies.rt_structure_set(seed=seed, references=images[2:4])
        if name:
            drawn.StructureSetROISequence[0].ROIName = name
        put(folder, "structures/RS", studies.to_bytes(drawn))


def test_structure_sets_with_names_of_their_own_are_told_what_they_mean(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path, 1, name="Sarcoma, left thigh")
    code, _ = evaluate(toml, tmp_path)
    told = capsys.readouterr().err
    assert code == 2
    assert "structures: Sarcoma, left thigh: structures/RS" in told
    assert "what was drawn on its series cannot be used" in told
    code, figures = evaluate(toml, tmp_path, "--label", f"*sarcoma*={LABEL}")
    assert (code, figures["slices"], figures["studies_with_lesion"]) == (0, 6, 1)


def test_a_patient_lost_to_an_unknown_structure_misleads(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path / "one", 1)
    write_series(tmp_path / "two", 2, name="Sarcoma")
    code, figures = evaluate(toml, tmp_path)
    assert (code, figures["slices"], figures["rejected_sources"]) == (1, 6, 7)
    assert "7 of 14 were lost" in capsys.readouterr().err


def test_links_to_folders_are_followed_and_a_folder_called_images_is_no_layout(
    toml: Path, tmp_path: Path
) -> None:
    write_series(tmp_path / "elsewhere", 1)
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path, target_is_directory=True)
    assert not is_layout(data)
    code, figures = evaluate(toml, data)
    assert (code, figures["slices"], figures["rejected_sources"]) == (0, 6, 0)


def test_label_files_beside_dicom_count_for_files_without_an_ending_too(
    toml: Path, tmp_path: Path
) -> None:
    images = studies.ct_series(3, seed=4)
    for image, text in zip(images, ("0 0.5 0.5 0.25 0.25\n", "", "\n"), strict=True):
        put(tmp_path, image.SOPInstanceUID, studies.to_bytes(image))
        put(tmp_path, f"{image.SOPInstanceUID}.txt", text)
    code, figures = evaluate(toml, tmp_path)
    assert (code, figures["slices"], figures["rejected_sources"]) == (0, 3, 0)
    assert (figures["studies"], figures["studies_with_lesion"]) == (1, 1)


def test_studies_without_annotation_are_free_of_lesions_only_where_that_is_said(
    toml: Path, tmp_path: Path
) -> None:
    write_series(tmp_path / "ill", 1)
    write_series(tmp_path / "well", 2, structures=False)
    code, figures = evaluate(toml, tmp_path)
    assert (code, figures["studies"], figures["study_specificity"]) == (0, 1, None)
    code, figures = evaluate(toml, tmp_path, "--unannotated-free")
    assert (code, figures["studies"], figures["studies_with_lesion"]) == (0, 2, 1)
    assert figures["study_specificity"] is not None


def test_data_without_a_lesion_have_a_specificity_and_no_sensitivity(
    toml: Path, tmp_path: Path
) -> None:
    write_series(tmp_path, 2, structures=False)
    code, figures = evaluate(toml, tmp_path, "--unannotated-free")
    assert code == 0
    assert figures["sensitivity_at_1_fp"] is figures["map50"] is None
    assert figures["study_specificity"] is not None
    assert figures["suggested_threshold"] == figures["threshold"]


def test_a_series_that_serving_would_not_screen_with_the_model_is_said(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = studies.cr_image()
    put(tmp_path, "a.dcm", studies.to_bytes(image))
    put(tmp_path, "a.txt", "0 0.5 0.5 0.25 0.25\n")
    assert evaluate(toml, tmp_path)[0] == 0
    assert "serving would not screen it" in capsys.readouterr().err


# --- the model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
def test_weights_stand_for_the_description_beside_them(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    put(data, "images/val/a.png", picture())
    put(data, "labels/val/a.txt", label())
    toml = write_tiny_model(tmp_path)
    weights = toml.with_suffix(suffix)
    if suffix == ".pt":
        weights.write_bytes(b"no weights")
        assert main(["evaluate", str(weights), str(data)]) == 2
        assert "weights: " in capsys.readouterr().err
    else:
        assert evaluate(weights, data)[0] == 0
    toml.unlink()
    assert main(["evaluate", str(weights), str(data)]) == 2
    assert f"described by no {toml.name} beside it" in capsys.readouterr().err


@pytest.mark.training
@pytest.mark.filterwarnings("default")  # of torch's exporter
@pytest.mark.parametrize("what", ["other classes", "no checkpoint", "no data"])
def test_an_export_that_fails_leaves_what_is_served(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    served = {f"soft-tissue{suffix}": b"served" for suffix in (".toml", ".onnx", ".pt")}
    for name, content in served.items():
        put(tmp_path / "models", name, content)
    shipped = Path(__file__).parents[2] / "models"
    weights = shipped / ("soft-tissue.pt" if what == "no data" else "brain.pt")
    if what == "no checkpoint":
        weights = tmp_path / "last.pt"
        weights.write_bytes(picture())
    command = ["export", "soft-tissue", "--weights", str(weights), "--data", str(tmp_path / "x")]
    assert main([*command, "--out", str(tmp_path / "models")]) == 2
    assert "error: " in capsys.readouterr().err
    left = {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()}
    assert left == served


@pytest.mark.parametrize("rule", ["mass", "=soft", "mass=nothing_known"])
def test_a_label_rule_that_cannot_be_is_told(
    toml: Path, tmp_path: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(toml, tmp_path, "--label", rule)[0] == 2
    assert f"--label {rule}" in capsys.readouterr().err
