"""The whole way with Ultralytics really installed: prepare, train, resume, export, evaluate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from slicewatch.detector import OnnxDetector
from slicewatch.pixels import letterbox, to_gray
from training.__main__ import main
from training.domains import SOFT_TISSUE
from training.export import load_model
from training.phantom import generate_phantom
from training.sources import BadSource, Findings, phantoms

pytestmark = [
    pytest.mark.training,
    pytest.mark.timeout(600),
    # Ultralytics and torch warn of their own ways of doing things, which we cannot change.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Generated slices in both splits, in YOLO layout and without a manifest."""
    folder = tmp_path / "data"
    for number, example in enumerate(phantoms(SOFT_TISSUE, 8, Findings())):
        split = "val" if number % 4 == 0 else "train"
        for kind, suffix, content in (
            ("images", ".png", example.png),
            ("labels", ".txt", example.label_text.encode()),
        ):
            path = folder / kind / split / f"{example.name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (folder / "dataset.yaml").write_text(
        "train: images/train\nval: images/val\nnames:\n  0: soft_tissue_mass\n"
    )
    return folder


def test_training_learns_resumes_and_exports_what_serving_loads(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    run = tmp_path / "run"
    train = ["train", SOFT_TISSUE.name, "--data", str(data), "--out", str(run), "--threads", "1"]
    # Without mosaics, which so few pictures learn slowly from.
    settings = ("epochs=12", "workers=0", "mosaic=0", "warmup_epochs=0.5", "save_period=6")
    small = [f"--set={pair}" for pair in settings]
    assert main([*train, *small]) == 0
    rows = (run / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 12
    header = [name.strip() for name in rows[0].split(",")]
    losses = [float(row.split(",")[header.index("train/cls_loss")]) for row in rows[1:]]
    assert fmean(losses[-3:]) < fmean(losses[:3])

    models = tmp_path / "models"
    weights = str(run / "weights" / "last.pt")
    export = ["export", SOFT_TISSUE.name, "--weights", weights, "--data", str(data)]
    assert main([*export, "--out", str(models), "--version", "0.0.1"]) == 0
    toml = models / "soft-tissue.toml"
    detector = OnnxDetector(load_model(toml), threads=1)
    assert detector.model.input_size == SOFT_TISSUE.size
    assert str(tmp_path).encode() not in (models / "soft-tissue.onnx").read_bytes()
    assert str(tmp_path).encode() not in (models / "soft-tissue.pt").read_bytes()

    figures = tmp_path / "figures.json"
    plots = tmp_path / "plots"
    evaluate = ["evaluate", str(toml), str(data), "--rounds", "5"]
    assert main([*evaluate, "--json", str(figures), "--plots", str(plots)]) == 0
    assert json.loads(figures.read_text())["map50"] >= 0
    assert len(list(plots.glob("*.png"))) == 3


def test_an_interrupted_training_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    from training.train import train
    from training.trainer import CpuTrainer

    run = tmp_path / "run"
    stop_after_two = {"epochs": 4, "workers": 0, "close_mosaic": 1}

    original = CpuTrainer.save_model

    def save_and_stop(trainer: CpuTrainer) -> object:
        saved = original(trainer)
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        return saved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuTrainer, "save_model", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(SOFT_TISSUE, data, run, threads=1, overrides=stop_after_two)
    shutil.copytree(run, tmp_path / "moved")
    with pytest.raises(BadSource, match=r"is of a run in .*run, and would go on there"):
        train(SOFT_TISSUE, data, tmp_path / "moved", threads=1, resume=True)
    last = train(SOFT_TISSUE, data, run, threads=1, resume=True)
    ended = last.read_bytes()
    assert train(SOFT_TISSUE, data, run, threads=1, resume=True).read_bytes() == ended
    epochs = [row.split(",")[0] for row in (run / "results.csv").read_text().splitlines()[1:]]
    assert [int(epoch) for epoch in epochs] == [1, 2, 3, 4]


def test_int8_keeps_the_layout_that_serving_asks_for(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    from ultralytics import YOLO

    from training.export import export

    network = YOLO("yolo26n.yaml")
    network.model.names = {0: "soft_tissue_mass"}
    weights = tmp_path / "random.pt"
    network.save(weights)
    planes = generate_phantom(seed=1, lesions=True, slices=4).hounsfield
    pictures = [
        letterbox(to_gray(plane.astype("float32"), "ct_soft_tissue"), SOFT_TISSUE.size)[0]
        for plane in planes
    ]
    files = export(weights, SOFT_TISSUE, tmp_path / "models", version="0.0.1", calibration=pictures)
    assert files.onnx.stat().st_size < 6_000_000
    OnnxDetector(load_model(files.toml), threads=1).detect(pictures)
