"""``python -m training``: what it writes, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import studies
from training.__main__ import main
from training.domains import SOFT_TISSUE
from training.evaluate import evaluate
from training.phantom import generate_study
from training.sources import BadSource, read_gray

MODELS = Path(__file__).parents[2] / "models"


def write(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def write_annotated_series(folder: Path, seed: int) -> None:
    images = studies.ct_series(6, seed=seed, lesion=(3, 4))
    for number, image in enumerate(images):
        write(folder, f"{number}.dcm", studies.to_bytes(image))
    structures = studies.rt_structure_set(seed=seed, references=images[2:4])
    write(folder, "RS.dcm", studies.to_bytes(structures))


@pytest.fixture(scope="module")
def dicom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve annotated patients: enough for the hash to put some into validation."""
    folder = tmp_path_factory.mktemp("dicom")
    for seed in range(12):
        write_annotated_series(folder / f"patient{seed}", seed)
    return folder


def prepare(*arguments: object) -> int:
    """With four patients in ten for validation, so that twelve give both splits some."""
    command = ["prepare", SOFT_TISSUE.name, "--validation-share", "0.4", *map(str, arguments)]
    return main(command)


def test_another_input_size_is_prepared_where_it_is_asked_for(
    dicom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    assert prepare("--dicom", dicom_folder, "--out", out, "--size", 96) == 0
    assert {read_gray(path).shape for path in out.glob("images/*/*.png")} == {(96, 96)}
    for size in (100, 32, -64):
        assert prepare("--dicom", dicom_folder, "--out", out, "--size", size) != 0
        assert f"--size {size}: expected a multiple of 32 from 64 on" in capsys.readouterr().err


def test_prepare_writes_a_data_set_with_manifest(dicom_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert prepare("--dicom", dicom_folder, "--out", out) == 0
    pictures = list(out.glob("images/*/*.png"))
    assert len(pictures) == 12 * 6
    assert {read_gray(path).shape for path in pictures} == {(SOFT_TISSUE.size,) * 2}
    labels = {path.stem: path.read_text() for path in out.glob("labels/*/*.txt")}
    assert sum(bool(text) for text in labels.values()) == 12 * 2
    assert labels.keys() == {path.stem for path in pictures}
    assert json.loads((out / "rejected.json").read_text())["problems"] == []


def test_prepare_gives_the_same_bytes_twice(dicom_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare("--dicom", dicom_folder, "--out", tmp_path / name)
    first, again = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in files(tmp_path / name)}
        for name in ("a", "b")
    )
    assert first == again


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_prepare_names_what_it_rejects_and_keeps_the_rest(
    dicom_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(dicom_folder, source)
    write(source, "broken.dcm", b"\0" * 128 + b"DICM" + b"rubbish")
    assert prepare("--dicom", source, "--out", tmp_path / "data") == 0
    rejected = json.loads((tmp_path / "data" / "rejected.json").read_text())["rejected"]
    assert [item["source"] for item in rejected] == ["broken.dcm"]
    assert rejected[0]["reason"]


def test_prepare_exits_with_1_when_the_result_would_mislead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_annotated_series(tmp_path / "source", seed=1)
    assert prepare("--dicom", tmp_path / "source", "--out", tmp_path / "data") == 1
    assert "misleading: split" in capsys.readouterr().out


def test_prepare_takes_label_files_beside_dicom(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed in range(12):
        image = studies.ct_image(seed=seed)
        write(source, f"{seed}.dcm", studies.to_bytes(image))
        (source / f"{seed}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    assert prepare("--dicom", source, "--out", tmp_path / "data") == 0
    texts = [path.read_text() for path in (tmp_path / "data").glob("labels/*/*.txt")]
    assert len(texts) == 12
    for text in texts:  # half a pixel of the margin's rounding is allowed
        assert [float(word) for word in text.split()[:3]] == pytest.approx([0, 0.5, 0.5], abs=0.01)


def test_a_folder_that_is_named_twice_gives_its_examples_once(
    dicom_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    assert prepare("--dicom", dicom_folder, "--dicom", dicom_folder, "--out", out) == 0
    assert len((out / "manifest.csv").read_text().splitlines()) == 1 + 12 * 6
    rejected = json.loads((out / "rejected.json").read_text())["rejected"]
    assert {item["reason"] for item in rejected} == {"same instance as in a folder before"}


def test_masked_pictures_without_a_mask_are_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    (source / "masks").mkdir()
    rows = ["sample_id,patient_id,class"]
    for n in range(30):
        mask = np.zeros((40, 40), np.uint8)
        if n != 7:
            mask[10:20, 10:25] = 255
        gray = np.random.default_rng(n).integers(0, 255, (40, 40), np.uint8)
        Image.fromarray(gray).save(source / "images" / f"{n}.jpg")
        Image.fromarray(mask).save(source / "masks" / f"{n}.jpg")
        rows.append(f"{n},{n},soft_tissue_mass")
    (source / "index.csv").write_text("\n".join(rows))
    assert prepare("--masked", source, "--out", tmp_path / "data") == 0
    rejected = json.loads((tmp_path / "data" / "rejected.json").read_text())["rejected"]
    assert rejected == [{"source": "images/7.jpg", "reason": "the mask is empty"}]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["prepare", "brain"], "no source was named"),
        (["prepare", "brain", "--masked", "nowhere", "--out", "{tmp}/x"], "nowhere is no folder"),
        (["prepare", "brain", "--masked", "{tmp}", "--out", "{tmp}/x"], "no index.csv"),
        (["prepare", "brain", "--dicom", "{tmp}", "--out", "{tmp}/x"], "no files"),
        (["prepare", "brain", "--generated", "1", "--out", "{full}"], "is not empty"),
        (["train", "brain", "--data", "{tmp}"], "no dataset.yaml"),
        (["train", "brain", "--set", "epochs"], "expected KEY=VALUE"),
        (["export", "brain", "--weights", "{tmp}/none.pt"], "does not exist"),
        (["evaluate", "{tmp}/none.toml", "{tmp}"], "none.toml does not exist"),
    ],
)
def test_bad_input_gets_its_cause_and_exit_code_2(
    arguments: list[str], cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "diary.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    given = [text.format(tmp=tmp_path / "empty", full=full) for text in arguments]
    assert main(given) == 2
    assert cause in capsys.readouterr().err
    assert (full / "diary.txt").exists()


@pytest.mark.parametrize(
    "toml", sorted(MODELS.glob("soft-tissue.toml")), ids=lambda path: path.stem
)
def test_evaluate_works_on_dicom_and_on_yolo_layout(
    toml: Path, dicom_folder: Path, tmp_path: Path
) -> None:
    prepare("--dicom", dicom_folder, "--out", tmp_path / "data")
    for data in (dicom_folder, tmp_path / "data"):
        path = tmp_path / "figures.json"
        command = [
            "evaluate",
            str(toml),
            str(data),
            "--json",
            str(path),
            "--rounds",
            "10",
            "--threads",
            "1",
        ]
        assert main(command) == 0
        figures = json.loads(path.read_text())
        assert {"map50", "map50_ci_low", "map50_95", "sensitivity_at_1_fp", "threshold"} <= set(
            figures
        )
        assert figures["studies_with_lesion"] > 0
        assert 0 <= figures["study_sensitivity_ci_low"] <= figures["study_sensitivity"]


@pytest.mark.parametrize(
    "toml", sorted(MODELS.glob("soft-tissue.toml")), ids=lambda path: path.stem
)
def test_evaluate_refuses_a_data_set_with_a_patient_in_two_splits(
    toml: Path, dicom_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    prepare("--dicom", dicom_folder, "--out", data)
    manifest = data / "manifest.csv"
    header, first, *others = manifest.read_text().splitlines()
    fields = first.split(",")
    fields[1] = "val" if fields[1] == "train" else "train"
    manifest.write_text("\n".join([header, ",".join(fields), *others]))
    with pytest.raises(BadSource, match="another split"):
        evaluate(toml, data, rounds=0)


def test_generated_studies_are_no_dicom_for_evaluation_without_annotation(tmp_path: Path) -> None:
    generate_study(tmp_path, seed=1, lesions=True, slices=2, rows=64, columns=64)
    toml = MODELS / "soft-tissue.toml"
    if not toml.is_file():
        pytest.skip("no weights are shipped")
    with pytest.raises(BadSource, match="2 sources were rejected"):
        evaluate(toml, tmp_path, rounds=0)
