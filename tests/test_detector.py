"""Detectors: boxes in the frame's pixels, one session a process, wrong weights refused."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from slicewatch import detector
from slicewatch.detector import (
    MAX_BATCH,
    OnnxDetector,
    UltralyticsDetector,
    detections,
    detector_for,
)
from slicewatch.model_registry import Model, ModelError, Registry
from slicewatch.pixels import letterbox
from tests.tiny_model import LABEL, tiny_graph, write_tiny_model

ROOT = Path(__file__).parents[1]


def load(description: Path) -> Model:
    (model,) = Registry.load(description.parent).models
    return model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load(write_tiny_model(tmp_path))


def bright(rows: int, columns: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A dark frame with a bright box (x1, y1, x2, y2)."""
    image = np.full((rows, columns), 20, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        (64, 64, (20, 24, 40, 36)),
        (128, 128, (40, 48, 80, 72)),
        (128, 256, (100, 48, 160, 80)),
        (300, 100, (30, 120, 70, 200)),
        (40, 32, (12, 14, 20, 26)),
    ],
)
def test_boxes_are_in_pixels_of_the_frame(
    model: Model, rows: int, columns: int, box: tuple[int, int, int, int]
) -> None:
    ((found,),) = OnnxDetector(model, threads=1).detect([bright(rows, columns, box)])
    assert found.label == LABEL
    assert found.score > 0.8
    pixel = max(rows, columns) / 64  # of the network's input
    assert np.abs(np.subtract(found.box, box)).max() <= pixel
    assert all(round(corner, 2) == corner for corner in found.box)


def test_frames_of_any_number_and_size_come_back_in_order(model: Model) -> None:
    served = OnnxDetector(model, threads=1)
    lit = [index % 3 == 0 for index in range(2 * MAX_BATCH + 5)]
    images = [
        bright(64 + index, 80, (30, 30, 45, 45) if on else (0, 0, 0, 0))
        for index, on in enumerate(lit)
    ]
    assert [bool(found) for found in served.detect(images)] == lit
    assert served.detect([]) == []


def test_a_frame_is_detected_alike_alone_and_in_a_batch(model: Model) -> None:
    served = OnnxDetector(model, threads=1)
    images = [bright(90, 70, (20 + n, 30, 40 + n, 50)) for n in range(MAX_BATCH + 1)]
    assert served.detect(images) == [found for image in images for found in served.detect([image])]


def test_threshold_order_and_damaged_rows(model: Model) -> None:
    _, box = letterbox(np.zeros((64, 64), np.uint8), 64)
    nan = float("nan")
    rows = np.array(
        [
            [1, 1, 5, 5, 0.4, 0],
            [2, 2, 9, 9, 0.9, 0],
            [3, 3, 6, 6, model.threshold, 0],
            [3, 3, 6, 6, np.nextafter(np.float32(model.threshold), np.float32(0)), 0],
            [8, 8, 2, 2, 0.8, 0],
            [1, 1, 5, 5, 0.7, 1],
            [1, 1, 5, 5, 0.7, -1],
            [1, nan, 5, 5, 0.7, 0],
            [1, 1, 5, 5, nan, 0],
            [70, 70, 90, 90, 0.6, 0],
            [60, 60, 90, 90, 0.5, 0],
        ],
        np.float32,
    )
    found = detections(rows, box, model)
    assert [(one.score, one.box) for one in found] == [
        (0.9, (2, 2, 9, 9)),
        (0.5, (60, 60, 64, 64)),
        (0.4, (1, 1, 5, 5)),
        (0.3, (3, 3, 6, 6)),
    ]


# --- loading ------------------------------------------------------------------------------------


def test_one_session_a_process_even_under_threads(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    start = threading.Barrier(6)

    class Counting(OnnxDetector):
        def __init__(self, model: Model, *, threads: int = 0) -> None:
            loaded.append(threads)
            super().__init__(model, threads=threads)

    monkeypatch.setattr(detector, "OnnxDetector", Counting)

    def use(_: int) -> detector.Detector:
        start.wait()
        served = detector_for(model, threads=1)
        assert len(served.detect([bright(64, 64, (20, 20, 40, 40))] * 20)) == 20
        return served

    with ThreadPoolExecutor(6) as pool:
        assert len(set(map(id, pool.map(use, range(6))))) == 1
    assert loaded == [1]


def test_nothing_heavy_is_imported_before_a_model_is_loaded() -> None:
    code = (
        "import sys; from slicewatch import detector, model_registry, screening;"
        "print(*[m for m in ('onnxruntime', 'pydicom', 'torch', 'ultralytics')"
        " if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""


@pytest.mark.parametrize(
    ("graph", "key", "says"),
    [
        (lambda: tiny_graph(columns=7), "weights", "expected one output"),
        (lambda: tiny_graph(columns=5), "weights", "Export the end-to-end head"),
        (lambda: tiny_graph(batch=1), "weights", "dynamic=True"),
        (lambda: tiny_graph(size=96), "input_size", "3×96×96"),
        (lambda: tiny_graph(names=("other",)), "classes", "['other']"),
        (lambda: tiny_graph(names=(LABEL, "more")), "classes", "more"),
        (lambda: tiny_graph(names=None), "classes", "name no classes"),
    ],
)
def test_weights_that_are_not_as_described_are_refused(
    tmp_path: Path, graph: object, key: str, says: str
) -> None:
    assert callable(graph)
    described = load(write_tiny_model(tmp_path, graph=graph()))
    with pytest.raises(ModelError) as caught:
        OnnxDetector(described, threads=1)
    assert caught.value.key == key
    assert says in str(caught.value)
    assert str(described.file) in str(caught.value)


def test_declared_shapes_are_not_believed(tmp_path: Path) -> None:
    graph = tiny_graph(columns=5)
    for dimension in graph.graph.output[0].type.tensor_type.shape.dim:
        dimension.dim_param = "unknown"
    with pytest.raises(ModelError, match="gives 2×300×5"):
        OnnxDetector(load(write_tiny_model(tmp_path, graph=graph)), threads=1)


def test_corrupted_or_swapped_weights_are_refused(model: Model) -> None:
    weights = bytearray(model.weights.read_bytes())
    weights[len(weights) // 2] ^= 1
    model.weights.write_bytes(weights)
    with pytest.raises(ModelError, match="corrupted or swapped") as caught:
        detector_for(model)
    assert caught.value.key == "sha256"


def test_weights_that_are_no_onnx_are_refused(tmp_path: Path) -> None:
    class Text:
        def SerializeToString(self) -> bytes:  # noqa: N802
            return b"no model at all"

    described = load(write_tiny_model(tmp_path, graph=Text()))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="is no ONNX model"):
        OnnxDetector(described)


def test_graph_of_several_outputs_is_refused(tmp_path: Path) -> None:
    graph = tiny_graph()
    graph.graph.output.append(onnx.helper.make_tensor_value_info("score", 1, ["batch"]))
    with pytest.raises(ModelError, match="one output"):
        OnnxDetector(load(write_tiny_model(tmp_path, graph=graph)))


@pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is not None, reason="Ultralytics is installed"
)
def test_pt_weights_without_ultralytics_say_what_to_install(tmp_path: Path) -> None:
    description = write_tiny_model(tmp_path)
    shutil.move(description.with_suffix(".onnx"), description.with_suffix(".pt"))
    description.write_text(description.read_text().replace(".onnx", ".pt"))
    with pytest.raises(ModelError, match=r"requirements-train\.txt") as caught:
        detector_for(load(description))
    assert caught.value.key == "weights"


@pytest.mark.training
@pytest.mark.filterwarnings("ignore")  # the exporter traces with many
def test_pt_weights_and_their_export_find_the_same(tmp_path: Path) -> None:
    """Untrained weights serve as well: what counts is that both ways use one head."""
    ultralytics = pytest.importorskip("ultralytics")
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    weights = tmp_path / f"{tmp_path.name}.pt"
    ultralytics.YOLO("yolo26n.yaml").save(weights)
    network = ultralytics.YOLO(weights)  # what it exports lies beside them
    exported = Path(network.export(format="onnx", imgsz=64, dynamic=True, nms=False))
    described = load(write_tiny_model(tmp_path / "tiny", threshold=1e-4))
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (70 + 9 * n, 64), np.uint8) for n in range(5)]
    found = []
    for path, backend in ((weights, UltralyticsDetector), (exported, OnnxDetector)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        classes = tuple(network.names.values())
        model = replace(described, weights=path, sha256=digest, classes=classes)
        found.append(backend(model, threads=1).detect(images))
    for one, other in zip(*found, strict=True):
        assert one
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert abs(a.score - b.score) < 0.01
            assert np.abs(np.subtract(a.box, b.box)).max() < 1
