"""The detector: frames in display gray to boxes in pixels of the frame.

ONNX Runtime serves; `.pt` weights go through Ultralytics where it is installed. Nothing heavy is
imported before a detector is loaded. A model's weights are read once: what was hashed is what
is loaded.
"""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slicewatch.model_registry import Model, ModelError
from slicewatch.pixels import Letterbox, letterbox, to_tensor
from slicewatch.records import Detection

MAX_BATCH = 8
"""Frames in one inference call: more of them leave the processor's caches (YOLO26n at 224 px on
one thread: 7.1 ms a frame at 8, 7.3 at 16, 7.8 at 32)."""

_MAX_DETECTIONS = 300
"""Rows that the end-to-end head gives for a frame."""


class Detector(Protocol):
    """A loaded model."""

    model: Model

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """Find objects in frames.

        Args:
            images: (rows, columns) display gray, any sizes.

        Returns:
            For each frame the detections at or above the model's threshold, best first, boxes in
            pixels of the frame. Safe to call from several threads.
        """


class OnnxDetector:
    """Serves an end-to-end YOLO export: ``images`` (n, 3, size, size) float32 from 0 to 1 in;
    (n, up to 300, 6) out: x1, y1, x2, y2 in input pixels, score, class.
    """

    def __init__(self, model: Model, *, threads: int = 0) -> None:
        """Load and try out the weights.

        Args:
            threads: that one inference call uses; 0: one. Calls run side by side on all cores
                that this process may use: a small network gains little from threads inside a
                call (YOLO26n at 160 px on two cores: 2.0 ms a frame as two calls, 3.5 ms as one).

        Raises:
            ModelError: the weights' hash, input, output or classes are not what the model's
                description says.
        """
        self.model = model
        weights = model.read_weights()

        import onnxruntime

        cores = os.process_cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle threads that spin take the cores from decoding and from other activities.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Calls beyond the cores would only share them, each with buffers of its own.
        side_by_side = max(1, cores // options.intra_op_num_threads)
        self._turns = threading.BoundedSemaphore(side_by_side)
        self._callers = ThreadPoolExecutor(side_by_side, "detector")
        try:
            self._session = onnxruntime.InferenceSession(
                weights, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime has an exception class for each kind of damage
            raise ModelError(model.file, "weights", f"is no ONNX model: {error}") from error
        self._check_classes()
        self._input = self._checked_input()
        self._try_out()

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """See `Detector.detect`; frames go through the network `MAX_BATCH` at a time."""
        batches = list(batched(images, MAX_BATCH, strict=False))
        if len(batches) < 2:
            return [found for batch in batches for found in self._detect(batch)]
        return [found for batch in self._callers.map(self._detect, batches) for found in batch]

    def _detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        fitted = [letterbox(image, self.model.input_size) for image in images]
        rows = self._run(to_tensor([image for image, _ in fitted]))
        return [
            detections(frame_rows, box, self.model)
            for frame_rows, (_, box) in zip(rows, fitted, strict=True)
        ]

    def _run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._turns:
            (output,) = self._session.run(None, {self._input: tensor})
        return np.asarray(output, np.float32)

    def _check_classes(self) -> None:
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            names = ast.literal_eval(metadata["names"])
            classes = tuple(str(names[index]) for index in range(len(names)))
        except (KeyError, ValueError, SyntaxError, TypeError) as error:
            raise self._fault("classes", "the weights name no classes") from error
        if classes != self.model.classes:
            raise self._fault(
                "classes", f"are {list(self.model.classes)}, the weights have {list(classes)}"
            )

    def _checked_input(self) -> str:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        size = self.model.input_size
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            raise self._fault("weights", "expected one input, float32 (n, 3, size, size)")
        batch, *frame = inputs[0].shape
        if isinstance(batch, int):
            raise self._fault("weights", f"takes {batch} frames a call; export with dynamic=True")
        if any(isinstance(n, int) and n != m for n, m in zip(frame, (3, size, size), strict=True)):
            raise self._fault(
                "input_size", f"is {size}, the weights take {'×'.join(map(str, frame))}"
            )
        if len(outputs) != 1 or len(outputs[0].shape) != 3:
            raise self._fault("weights", _expected_output(outputs[0].shape if outputs else []))
        return str(inputs[0].name)

    def _try_out(self) -> None:
        """Run once: the shapes that a graph declares may be symbols, and the first run is slow."""
        size = self.model.input_size
        try:
            output = self._run(np.zeros((2, 3, size, size), np.float32))
        except Exception as error:  # as above
            raise self._fault("weights", f"does not run on {size}×{size}: {error}") from error
        if output.ndim != 3 or output.shape[0] != 2 or output.shape[2] != 6:
            raise self._fault("weights", _expected_output(output.shape))

    def _fault(self, key: str, fault: str) -> ModelError:
        return ModelError(self.model.file, key, fault)


class UltralyticsDetector:
    """Serves `.pt` weights with the framework that trained them."""

    def __init__(self, model: Model, *, threads: int = 0) -> None:
        """Load the weights.

        Raises:
            ModelError: Ultralytics is not installed, or hash or classes are not what the model's
                description says.
        """
        self.model = model
        model.read_weights()
        try:
            import torch
            from ultralytics import YOLO
        except ImportError as error:
            raise ModelError(
                model.file,
                "weights",
                f"{model.weights.name} needs Ultralytics: pip install -r requirements-train.txt,"
                " or export the weights to ONNX",
            ) from error
        torch.set_num_threads(threads or os.process_cpu_count() or 1)
        try:
            self._network: Any = YOLO(str(model.weights), task="detect")
        except Exception as error:  # its loader has an exception for each kind of damage
            raise ModelError(model.file, "weights", f"is no checkpoint: {error}") from error
        self._lock = threading.Lock()
        classes = tuple(name for _, name in sorted(self._network.names.items()))
        if classes != model.classes:
            raise ModelError(
                model.file,
                "classes",
                f"are {list(model.classes)}, the weights have {list(classes)}",
            )

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[Detection, ...]]:
        """See `Detector.detect`. The frames are fitted here, as for ONNX, not by Ultralytics."""
        found: list[tuple[Detection, ...]] = []
        for batch in batched(images, MAX_BATCH, strict=False):
            fitted = [letterbox(image, self.model.input_size) for image in batch]
            colour = [np.repeat(image[..., None], 3, axis=2) for image, _ in fitted]
            with self._lock:  # its predictor holds state
                results = self._network.predict(
                    colour,
                    imgsz=self.model.input_size,
                    conf=self.model.threshold,
                    max_det=_MAX_DETECTIONS,
                    nms=False,  # the end-to-end head, which is exported too; not the default
                    device="cpu",
                    verbose=False,
                )
            for result, (_, box) in zip(results, fitted, strict=True):
                rows = result.boxes.data.cpu().numpy().astype(np.float32)
                found.append(detections(rows, box, self.model))
        return found


def detections(rows: NDArray[np.float32], box: Letterbox, model: Model) -> tuple[Detection, ...]:
    """The network's rows for one frame as detections in the frame's pixels, best first.

    Args:
        rows: (n, 6) x1, y1, x2, y2 in input pixels, score, class.
    """
    rows = rows[rows[:, 4] >= model.threshold]  # not-a-number compares false
    if not len(rows):
        return ()
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    boxes = box.to_source(rows[:, :4]).tolist()
    found = []
    for (x1, y1, x2, y2), (score, label) in zip(boxes, rows[:, 4:].tolist(), strict=True):
        # Damaged rows and boxes that lie in the margin are no boxes in the frame.
        if x1 < x2 and y1 < y2 and 0 <= label < len(model.classes):
            # A hundredth of a pixel is finer than any box is known, and keeps records short.
            corners = (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2))
            found.append(Detection(model.classes[int(label)], round(score, 4), corners))
    return tuple(found)


def _expected_output(shape: Sequence[object]) -> str:
    return (
        f"gives {'×'.join(map(str, shape))}; expected one output (n, up to {_MAX_DETECTIONS}, 6):"
        " x1, y1, x2, y2, score, class. Export the end-to-end head"
    )


# --- one detector a process and model -----------------------------------------------------------

_loaded: dict[tuple[str, str, str, int], Detector] = {}
_loading = threading.Lock()


def detector_for(model: Model, *, threads: int = 0) -> Detector:
    """The process's detector for a model, loaded on first use.

    Raises:
        ModelError: see `OnnxDetector` and `UltralyticsDetector`.
    """
    key = (model.key, model.sha256, str(model.weights), threads)
    if (detector := _loaded.get(key)) is not None:
        return detector
    with _loading:
        if key not in _loaded:
            backend = UltralyticsDetector if model.weights.suffix == ".pt" else OnnxDetector
            _loaded[key] = backend(model, threads=threads)
        return _loaded[key]
