"""Commands that make models and measure them: ``train`` to ``export``, and ``all``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewatch.dataset_checks import check_losses
from slicewatch.dataset_planning import LabelMap
from training.arguments import (
    MODELS,
    RUNS,
    Subparsers,
    add_domain,
    add_label,
    add_set,
    add_size,
    domain_of,
    label_rules,
    overrides_of,
)
from training.data_commands import tell
from training.domains import BRAIN, SOFT_TISSUE, Domain
from training.prepare import prepare
from training.sources import BadSource, Findings, read_gray, summary

CALIBRATION_SLICES = 128


def add_train(commands: Subparsers) -> None:
    parser = commands.add_parser("train", help="train a detector from scratch, resumable")
    add_domain(parser)
    parser.add_argument("--data", type=Path, help="default: runs/data/DOMAIN")
    parser.add_argument("--out", type=Path, help="folder of the run; default: runs/train/DOMAIN")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--start-from", type=Path, help="checkpoint to start from")
    parser.add_argument("--device", default="cpu", help="cpu, or a CUDA device such as 0")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    add_set(parser)
    parser.set_defaults(run=_run_train)


def _run_train(options: argparse.Namespace) -> int:
    from training.train import train

    domain = domain_of(options.domain, options.size)
    weights = train(
        domain,
        options.data or RUNS / "data" / domain.name,
        options.out or RUNS / "train" / domain.name,
        resume=options.resume,
        start_from=options.start_from,
        device=options.device,
        threads=options.threads,
        overrides=overrides_of(options.set),
    )
    print(f"weights: {weights}")
    return 0


def add_average(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "average", help="the mean of checkpoints of one detector's stages, as one checkpoint"
    )
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.set_defaults(run=_run_average)


def _run_average(options: argparse.Namespace) -> int:
    from training.average import average

    average(options.checkpoints, options.out)
    print(f"weights: {options.out}")
    return 0


def add_evaluate(commands: Subparsers) -> None:
    from training.evaluate import DEFAULT_POLICY

    parser = commands.add_parser(
        "evaluate", help="measure a model on slices and studies, with intervals"
    )
    parser.add_argument(
        "model", type=Path, help="TOML of the model, such as models/brain.toml, or .pt beside it"
    )
    parser.add_argument(
        "data",
        type=Path,
        help="data set in YOLO layout (folder or YAML file), or a folder of DICOM with RTSTRUCT, "
        "SEG or YOLO label files anywhere below",
    )
    add_label(parser)
    parser.add_argument(
        "--unannotated-free",
        action="store_true",
        help="DICOM: studies without any annotation count as free of lesions; else left out",
    )
    parser.add_argument("--split", default="val", help="of a data set in YOLO layout")
    parser.add_argument("--policy", type=Path, default=DEFAULT_POLICY, help="triage policy (TOML)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plots", type=Path, help="write PNG plots to this folder")
    parser.add_argument("--rounds", type=int, default=500, help="bootstrap samples")
    parser.add_argument("--threads", type=int, default=0, help="of the detector")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> int:
    from training.evaluate import evaluate, plot, table, write_json
    from training.export import load_model

    evaluation = evaluate(
        options.model,
        options.data,
        split=options.split,
        policy=options.policy,
        rounds=options.rounds,
        threads=options.threads,
        labels=LabelMap(label_rules(options.label, load_model(options.model).classes)),
        unannotated_free=options.unannotated_free,
    )
    print(table(evaluation))
    print(f"suggested threshold {evaluation.suggested_threshold:.3f} ({evaluation.rule})")
    code = _tell_losses(evaluation.findings)
    if options.json:
        write_json(evaluation, options.json)
    if options.plots:
        plot(evaluation, options.plots)
    return code


def _tell_losses(findings: Findings) -> int:
    """Say what was left out of the figures, and whether that makes them mislead."""
    for title, notes in (("left out", findings.rejects), ("note", findings.remarks)):
        for line in summary(notes):
            print(f"{title}: {line}", file=sys.stderr)
    problems = check_losses(findings.rejects, findings.sources)
    for problem in problems:
        print(f"misleading: {problem.source}: {problem.reason}", file=sys.stderr)
    return 1 if problems else 0


def add_export(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "export", help="weights to ONNX and TOML; the threshold comes from the validation fold"
    )
    add_domain(parser)
    parser.add_argument("--weights", type=Path, help="default: runs/train/DOMAIN/weights/last.pt")
    parser.add_argument("--data", type=Path, help="default: runs/data/DOMAIN")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the models")
    parser.add_argument("--version", default="0.1.0", help="version of the model")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantise, calibrated on training slices; written to the folder int8 in --out",
    )
    parser.set_defaults(run=_run_export)


def _run_export(options: argparse.Namespace) -> int:
    domain = domain_of(options.domain, options.size)
    _export(
        domain,
        options.weights or RUNS / "train" / domain.name / "weights" / "last.pt",
        options.data or RUNS / "data" / domain.name,
        options.out / "int8" if options.int8 else options.out,
        options.version,
        int8=options.int8,
    )
    return 0


def _export(
    domain: Domain, weights: Path, data: Path, out: Path, version: str, *, int8: bool = False
) -> Path:
    from training.evaluate import evaluate
    from training.export import describe, export

    if not weights.is_file():
        raise BadSource(f"{weights} does not exist; run: python -m training train")
    calibration = calibration_pictures(data) if int8 else []
    out.mkdir(parents=True, exist_ok=True)
    # What is served stays as it is until the new model has proved itself.
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as staging:
        files = export(weights, domain, Path(staging), version=version, calibration=calibration)
        found = evaluate(files.toml, data, rounds=0)
        describe(files, domain, version, threshold=found.suggested_threshold, rule=found.rule)
        toml = out / files.toml.name
        for path in Path(staging).iterdir():
            if path != files.toml:
                path.replace(out / path.name)
        files.toml.replace(toml)
    print(f"{toml}: threshold {found.suggested_threshold:.3f} ({found.rule})")
    return toml


def calibration_pictures(data: Path) -> list[NDArray[np.uint8]]:
    """Every n-th training picture, about `CALIBRATION_SLICES` of them."""
    pictures = sorted((data / "images" / "train").glob("*.png"))
    if not pictures:
        raise BadSource(f"{data} holds no training pictures to calibrate with")
    step = max(1, len(pictures) // CALIBRATION_SLICES)
    return [read_gray(path) for path in pictures[::step]]


def add_all(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "all", help="prepare, train, export and evaluate both detectors on the shared data"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the models")
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    add_size(parser)
    add_set(parser)
    parser.set_defaults(run=_run_all)


def _run_all(options: argparse.Namespace) -> int:
    from training.evaluate import evaluate, plot, table, write_json
    from training.train import train

    sources: dict[str, dict[str, Any]] = {
        BRAIN.name: {"masked": (options.data / "brain-mri",), "normal": 120},
        SOFT_TISSUE.name: {"dicom": (options.data / "soft-tissue",), "generated": 48},
    }
    last: dict[str, Path] = {}
    for name, source in sources.items():
        domain = domain_of(name, options.size)
        data, run = RUNS / "data" / name, RUNS / "train" / name
        if tell(prepare(domain, data, **source)):
            return 1
        last[name] = train(
            domain,
            data,
            run,
            resume=(run / "weights" / "last.pt").is_file(),
            start_from=last.get(domain.begins_from),
            device=options.device,
            threads=options.threads,
            overrides=overrides_of(options.set),
        )
        toml = _export(domain, last[name], data, options.out, options.version)
        evaluation = evaluate(toml, data)
        print(table(evaluation))
        write_json(evaluation, RUNS / "evaluation" / f"{name}.json")
        plot(evaluation, RUNS / "evaluation")
    return 0
