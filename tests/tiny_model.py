"""A real detector in a few kilobytes: an ONNX graph that boxes what is bright.

The graph has the interface of an end-to-end YOLO export and no trained weights: it takes the
first channel, keeps pixels at or above `BRIGHT` of full scale inside the middle of the frame
(the rim, where padding and tables lie, is ignored), and reports the extent of what it kept as one
box, scored by how much of that box is bright, with 299 empty rows after it. Deterministic, and
fast: it is for tests of what lies around a detector.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BRIGHT = 0.9
NAME, VERSION, LABEL = "tiny-bright", "1.0.0", "bright_region"
SIZE = 64
THRESHOLD = 0.3

_TOML = """\
name = "{name}"
version = "{version}"
weights = "{name}.onnx"
sha256 = "{sha256}"
classes = {classes}
input_size = {size}
threshold = {threshold}
intensity = "ct_soft_tissue"
priority = {priority}

[[series]]
Modality = "CT"

[[series]]
Modality = "MR"
intensity = "mr_percentile"
"""


def tiny_graph(
    *,
    size: int = SIZE,
    names: tuple[str, ...] | None = (LABEL,),
    columns: int = 6,
    batch: str | int = "batch",
) -> onnx.ModelProto:
    """The graph; `names`, `columns` and `batch` let a test break its interface."""
    constants: dict[str, np.ndarray] = {
        "bright": np.array(BRIGHT, np.float32),
        "rim": _rim_mask(size),
        "x": np.arange(size, dtype=np.float32).reshape(1, 1, size),
        "y": np.arange(size, dtype=np.float32).reshape(1, size, 1),
        "far": np.array(size, np.float32),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "channel": np.array([1], np.int64),
        "plane": np.array([1, 2], np.int64),
        "column": np.array([-1], np.int64),
        "row": np.array([1], np.int64),
        "padding": np.array([0, 0, 0, 0, 299, 0], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Slice", ["images", "first", "second", "channel"], ["gray4"]),
        node("Squeeze", ["gray4", "channel"], ["gray"]),
        node("GreaterOrEqual", ["gray", "bright"], ["lit"]),
        node("And", ["lit", "rim"], ["kept"]),
        node("Cast", ["kept"], ["kept_f"], to=TensorProto.FLOAT),
        node("Where", ["kept", "x", "far"], ["xs_low"]),
        node("Where", ["kept", "y", "far"], ["ys_low"]),
        node("Mul", ["kept_f", "x"], ["xs_high"]),
        node("Mul", ["kept_f", "y"], ["ys_high"]),
        node("ReduceMin", ["xs_low", "plane"], ["x1"], keepdims=0),
        node("ReduceMin", ["ys_low", "plane"], ["y1"], keepdims=0),
        node("ReduceMax", ["xs_high", "plane"], ["x2_inside"], keepdims=0),
        node("ReduceMax", ["ys_high", "plane"], ["y2_inside"], keepdims=0),
        node("Add", ["x2_inside", "one"], ["x2"]),
        node("Add", ["y2_inside", "one"], ["y2"]),
        node("Sub", ["x2", "x1"], ["width"]),
        node("Sub", ["y2", "y1"], ["height"]),
        node("Mul", ["width", "height"], ["signed_area"]),
        # Without a bright pixel, x1 and y1 are `far` and the sum is 0: score 0.
        node("Abs", ["signed_area"], ["area_or_zero"]),
        node("Max", ["area_or_zero", "one"], ["area"]),
        node("ReduceSum", ["kept_f", "plane"], ["count"], keepdims=0),
        node("Div", ["count", "area"], ["score"]),
        node("Mul", ["score", "zero"], ["class"]),
    ]
    fields = ["x1", "y1", "x2", "y2", "score", "class", "class"][:columns]
    nodes += [node("Unsqueeze", [f, "column"], [f"{f}_{i}"]) for i, f in enumerate(fields)]
    nodes += [
        node("Concat", [f"{f}_{i}" for i, f in enumerate(fields)], ["best"], axis=1),
        node("Unsqueeze", ["best", "row"], ["rows"]),
        node("Pad", ["rows", "padding"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 300, columns])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    if names is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "names", str(dict(enumerate(names)))
    onnx.checker.check_model(model)
    return model


def _rim_mask(size: int) -> np.ndarray:
    """True in the middle: an eighth of the edge is left out on each side."""
    mask = np.zeros((1, size, size), np.bool_)
    rim = size // 8
    mask[:, rim : size - rim, rim : size - rim] = True
    return mask


def write_tiny_model(
    folder: Path,
    *,
    graph: onnx.ModelProto | None = None,
    name: str = NAME,
    version: str = VERSION,
    size: int = SIZE,
    threshold: float = THRESHOLD,
    classes: tuple[str, ...] = (LABEL,),
    priority: int = 1,
) -> Path:
    """Write ``NAME.toml`` and ``NAME.onnx`` into `folder`; return the TOML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = (graph or tiny_graph(size=size)).SerializeToString()
    (folder / f"{name}.onnx").write_bytes(weights)
    description = folder / f"{name}.toml"
    description.write_text(
        _TOML.format(
            name=name,
            version=version,
            sha256=hashlib.sha256(weights).hexdigest(),
            classes=str(list(classes)).replace("'", '"'),
            size=size,
            threshold=threshold,
            priority=priority,
        )
    )
    return description
