"""``python -m training export``: trained weights to a model that the registry serves.

The graph is YOLO26's end-to-end head: (batch, 300, 6) with x1, y1, x2, y2 in input pixels, score
and class, so nothing is left to do after it but a threshold.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewatch.detector import OnnxDetector
from slicewatch.model_registry import Model, Registry
from slicewatch.pixels import to_tensor
from training.domains import Domain
from training.sources import BadSource

_QUANTISED = ("Conv", "Sigmoid", "Mul", "Add", "Concat", "Split", "MaxPool", "Resize")
_FIRST_MODULES = (0, 1)

DISCLAIMER = "not a medical device; for research and evaluation"


@dataclass(frozen=True, slots=True)
class Exported:
    """Files of a model in its folder."""

    toml: Path
    onnx: Path


def export(
    weights: Path,
    domain: Domain,
    folder: Path,
    *,
    version: str,
    calibration: Sequence[NDArray[np.uint8]] = (),
) -> Exported:
    """Write NAME.onnx and NAME.toml, and load the result as serving would.

    The FP32 graph is accompanied by NAME.pt, its reference.

    The threshold is a placeholder until `describe` writes the one that was chosen.

    Args:
        weights: Ultralytics checkpoint.
        domain: what it was trained for.
        folder: usually ``models``.
        version: of the model.
        calibration: letterboxed training pictures; where given, the graph is quantised to INT8.

    Raises:
        BadSource: the weights are no checkpoint.
        ModelError: the exported graph is not what the description says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = Exported(folder / f"{domain.name}.toml", folder / f"{domain.name}.onnx")
    with tempfile.TemporaryDirectory() as temporary:
        clean = Path(temporary) / f"{domain.name}.pt"
        _write_clean_checkpoint(weights, clean)
        graph = _export_graph(clean, domain)
        if calibration:
            graph = quantise(graph, calibration, graph.with_suffix(".int8.onnx"))
        else:
            shutil.copyfile(clean, folder / clean.name)
        _describe_graph(graph, domain)
        shutil.copyfile(graph, files.onnx)
    describe(files, domain, version, threshold=0.5, rule="placeholder")
    OnnxDetector(load_model(files.toml))
    return files


def describe(files: Exported, domain: Domain, version: str, *, threshold: float, rule: str) -> None:
    """Write the description; `rule` is the sentence that says where the threshold comes from."""
    files.toml.write_text(_toml(files.onnx, domain, version, threshold, rule), "utf-8")


def load_model(file: Path) -> Model:
    """The registry's view of one description, or of weights (.onnx, .pt) beside theirs.

    Raises:
        FileNotFoundError: the file, or the description of weights, is not there.
        ModelError: a description of the folder cannot be used.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; name a model's TOML")
    toml = file.with_suffix(".toml")
    if not toml.is_file():
        raise FileNotFoundError(
            f"{file} is described by no {toml.name} beside it; python -m training export makes it"
        )
    models = Registry.load(toml.parent).models
    model = next(one for one in models if one.file.name == toml.name)
    return model if file.name in (toml.name, model.weights.name) else _served_from(model, file)


def reference_model(toml: Path) -> Model:
    """The same model, served from the ``.pt`` weights beside it."""
    return load_model(toml.with_suffix(".pt"))


def _served_from(model: Model, weights: Path) -> Model:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return replace(model, weights=weights, sha256=digest)


def _export_graph(weights: Path, domain: Domain) -> Path:
    from ultralytics import YOLO

    return Path(
        YOLO(str(weights)).export(
            format="onnx", nms=False, dynamic=True, imgsz=domain.size, device="cpu", verbose=False
        )
    )


def _write_clean_checkpoint(weights: Path, out: Path) -> None:
    """The weights in half precision, without optimizer state and without paths of a machine."""
    import torch

    try:
        checkpoint: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=False)
        model = (checkpoint.get("ema") or checkpoint["model"]).half()
    except Exception as error:  # the loader has an exception for each kind of damage
        raise BadSource(f"{weights} is no checkpoint of Ultralytics: {error}") from error
    for parameter in model.parameters():
        parameter.requires_grad = False
    kept = {"imgsz", "epochs", "batch", "optimizer", "lr0", "task", "mode", "seed"}
    source = checkpoint.get("train_args") or {}
    arguments = {key: value for key, value in source.items() if key in kept}
    model.args = arguments
    torch.save(
        {
            "model": model,
            "ema": None,
            "optimizer": None,
            "epoch": -1,
            "train_args": arguments,
            "version": checkpoint.get("version"),
            "license": checkpoint.get("license"),
            "date": checkpoint.get("date"),
        },
        out,
    )


def _describe_graph(graph: Path, domain: Domain) -> None:
    """Metadata that says what the model is, and not on which machine it was made."""
    import onnx

    model = onnx.load(graph)
    kept = {"names", "stride", "task", "imgsz", "channels", "end2end", "license", "author"}
    metadata = {p.key: p.value for p in model.metadata_props if p.key in kept}
    metadata |= {"description": f"Slicewatch {domain.name}: {DISCLAIMER}"}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, graph)


def quantise(graph: Path, calibration: Sequence[NDArray[np.uint8]], out: Path) -> Path:
    """Static INT8 quantisation (QDQ), ranges from `calibration`.

    What lies between the convolutions is quantised with them, so that activations stay in INT8
    from one to the next; with the convolutions alone, changing back and forth costs all that
    they gain. The detection head stays in float: its last convolutions hold scores and distances
    of very different ranges. So do the first two modules: the loss of mAP50 is theirs for the most
    part, their time is not.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([to_tensor([image]) for image in calibration])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    prepared = graph.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    nodes = [node.name for node in onnx.load(prepared).graph.node]
    in_float = [f"/model.{module}/" for module in (*_FIRST_MODULES, _last_module(nodes))]
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTISED),
        nodes_to_exclude=[name for name in nodes if any(part in name for part in in_float)],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return out


def _last_module(names: Sequence[str]) -> int:
    import re

    found = [int(match[1]) for name in names if (match := re.search(r"/model\.(\d+)/", name))]
    if not found:
        raise ValueError("the graph's nodes do not carry the modules' names")
    return max(found)


def _toml(onnx: Path, domain: Domain, version: str, threshold: float, rule: str) -> str:
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    return f"""\
# Written by "python -m training export". {DISCLAIMER[0].upper()}{DISCLAIMER[1:]}.
name = "slicewatch-{domain.name}"
version = {json.dumps(version)}
weights = "{onnx.name}"
sha256 = "{digest}"
classes = {json.dumps(list(domain.classes))}
input_size = {domain.size}
threshold = {threshold:.3f}
intensity = "{domain.intensities.get("CT", domain.intensities[""])}"
priority = {domain.priority}

{domain.series}
[about]
threshold_rule = {json.dumps(rule)}
"""
