"""``python -m training evaluate``: the figures, as JSON with flat keys, plots and a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slicewatch.dataset_description import Description
from slicewatch.dataset_planning import LabelMap
from slicewatch.detector import Detector, OnnxDetector, UltralyticsDetector
from slicewatch.model_registry import Model
from slicewatch.triage import Policy, load_policy
from training import metrics
from training.cases import FLOOR, Case, load_cases
from training.domains import DOMAINS
from training.export import load_model
from training.metrics import Interval
from training.sources import Findings
from training.studies import THRESHOLDS, Flags, choose_threshold, flags_at

DEFAULT_POLICY = Path(__file__).parent.parent / "slicewatch" / "policies" / "default.toml"
_BOX_THRESHOLD_RULE = "validation patients: highest F1 of boxes at IoU 0.5"

type Figures = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was measured; `flat` is what the JSON holds."""

    model: Model
    cases: tuple[Case, ...]
    flat: Figures
    curve: tuple[Flags, ...]
    suggested_threshold: float
    rule: str
    findings: Findings


def evaluate(
    toml: Path,
    data: Path,
    *,
    split: str = "val",
    policy: Path = DEFAULT_POLICY,
    rounds: int = 500,
    threads: int = 0,
    labels: LabelMap | None = None,
    unannotated_free: bool = False,
) -> Evaluation:
    """Measure a model on a data set in YOLO layout, or on DICOM with RTSTRUCT or SEG.

    Args:
        toml: the model's description in its folder, or weights beside it.
        data: see `training.cases.load_cases`.
        split: of a data set in YOLO layout.
        policy: triage policy that makes the flag.
        rounds: bootstrap samples.
        threads: of the detector.
        labels: which structures and names are of which class, before those of `labels_of`.
        unannotated_free: see `training.sources.plan_folder`.

    Raises:
        BadSource: the data cannot be evaluated.
        ModelError: the model cannot be loaded.
    """
    model = load_model(toml)
    backend = UltralyticsDetector if model.weights.suffix == ".pt" else OnnxDetector
    detector: Detector = backend(replace(model, threshold=FLOOR), threads=threads)
    known = LabelMap((*(labels.rules if labels else ()), *labels_of(model.classes).rules))
    cases, findings = load_cases(
        data, detector, known, split=split, unannotated_free=unannotated_free
    )
    rules = load_policy(policy)
    curve = tuple(flags_at(cases, rules, float(t)) for t in THRESHOLDS)
    suggested, rule = _suggest(cases, curve, model)
    flat: Figures = {
        "model": model.key,
        "weights_sha256": model.sha256,
        "policy": rules.name,
        "threshold": model.threshold,
        "suggested_threshold": suggested,
        "slices": len(cases),
        "patients": len({case.patient for case in cases}),
        "rejected_sources": len(findings.rejects),
        **_slice_figures(cases, model, rounds),
        **_study_figures(cases, rules, model.threshold, ""),
    }
    for modality in sorted({case.modality for case in cases if case.modality}):
        members = [case for case in cases if case.modality == modality]
        flat |= _study_figures(members, rules, model.threshold, f"_{modality.lower()}")
    return Evaluation(model, tuple(cases), flat, curve, suggested, rule, findings)


def labels_of(classes: tuple[str, ...]) -> LabelMap:
    """Which structures are of which class: the domain's rules, then those of data sets."""
    domain = next((d for d in DOMAINS.values() if d.classes == classes), None)
    usual = Description(classes=classes).label_map()
    return LabelMap((*(domain.labels.rules if domain else ()), *usual.rules))


def _suggest(cases: Sequence[Case], curve: Sequence[Flags], model: Model) -> tuple[float, str]:
    """By studies where there are stacks of slices, else by boxes."""
    if not any(case.truth for case in cases):
        return model.threshold, "the model's own, for there is no lesion to choose one by"
    slices_by_unit = len(cases) / max(len({case.unit for case in cases}), 1)
    linked = any(case.order for case in cases)
    if linked and slices_by_unit > 5:
        point, rule = choose_threshold(curve)
        return point.threshold, rule
    slices = [case.as_slice(model.classes) for case in cases]
    _, f1 = metrics.f1_by_threshold(slices, len(model.classes), THRESHOLDS)
    return float(THRESHOLDS[int(f1.argmax())]), _BOX_THRESHOLD_RULE


def _slice_figures(cases: Sequence[Case], model: Model, rounds: int) -> Figures:
    classes = len(model.classes)
    slices = [case.as_slice(model.classes) for case in cases]
    precision = metrics.mean_average_precision(slices, classes, rounds=rounds)
    flat: Figures = {
        **_interval("map50", precision.map50),
        **_interval("map50_95", precision.map50_95),
    }
    for name, interval in zip(model.classes, precision.ap50, strict=True):
        flat |= _interval(f"map50_{name}", interval)
    curve = metrics.froc(slices, classes)
    lesions = any(case.truth for case in cases)
    for point in metrics.FROC_POINTS:
        flat[f"sensitivity_at_{point:g}_fp"] = _finite(curve.at(point)) if lesions else None
    flat["calibration_error"] = _finite(metrics.calibration(slices, classes).error)
    return flat


def _study_figures(cases: Sequence[Case], policy: Policy, threshold: float, suffix: str) -> Figures:
    flags = flags_at(cases, policy, threshold)
    return {
        f"studies{suffix}": flags.units,
        f"studies_with_lesion{suffix}": flags.with_lesion,
        **_interval(f"study_sensitivity{suffix}", flags.sensitivity),
        **_interval(f"study_specificity{suffix}", flags.specificity),
        f"false_flags_per_study{suffix}": flags.false_flags_per_study,
        f"free_stretches{suffix}": flags.stretches,
        **_interval(f"free_stretch_specificity{suffix}", flags.stretch_specificity),
    }


def _interval(key: str, interval: Interval) -> Figures:
    return {
        key: _finite(interval.value),
        f"{key}_ci_low": _finite(interval.low),
        f"{key}_ci_high": _finite(interval.high),
    }


def _finite(value: float) -> float | None:
    """Rounded; ``None`` where there is nothing to measure: JSON knows no NaN."""
    return round(value, 4) if math.isfinite(value) else None


def write_json(evaluation: Evaluation, path: Path) -> None:
    """The flat figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evaluation.flat, indent=1) + "\n", "utf-8")


def table(evaluation: Evaluation) -> str:
    """The figures for people, one a line, with intervals in brackets."""
    flat = evaluation.flat
    lines = []
    for key, value in flat.items():
        if key.endswith(("_ci_low", "_ci_high")):
            continue
        text = "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        low, high = flat.get(f"{key}_ci_low"), flat.get(f"{key}_ci_high")
        if isinstance(low, float) and isinstance(high, float):
            text += f"  [{low:.3f}, {high:.3f}]"
        lines.append(f"{key:<34} {text}")
    return "\n".join(lines)


def plot(evaluation: Evaluation, folder: Path) -> list[Path]:
    """FROC, calibration, and the study curve against the threshold, as PNG."""
    import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    classes = evaluation.model.classes
    slices = [case.as_slice(classes) for case in evaluation.cases]
    stem = evaluation.model.name
    written = []

    curve = metrics.froc(slices, len(classes))
    figure, axes = plt.subplots(figsize=(5, 4))
    axes.plot(curve.false_positives, curve.sensitivity)
    axes.set(xscale="log", xlim=(1 / 16, 8), ylim=(0, 1))
    axes.set(xlabel="false positives a slice", ylabel="sensitivity (IoU 0.5)", title="FROC")
    written.append(_save(figure, folder / f"{stem}-froc.png"))

    bins = metrics.calibration(slices, len(classes))
    figure, axes = plt.subplots(figsize=(5, 4))
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    known = bins.count > 0
    axes.plot(bins.score[known], bins.precision[known], "o-")
    axes.set(xlabel="score", ylabel="share that is a lesion", title="calibration")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    written.append(_save(figure, folder / f"{stem}-calibration.png"))

    figure, axes = plt.subplots(figsize=(5, 4))
    thresholds = [point.threshold for point in evaluation.curve]
    for label, values in (
        ("study sensitivity", [p.sensitivity.value for p in evaluation.curve]),
        ("false flags a study", [p.false_flags_per_study for p in evaluation.curve]),
        ("free stretches without flag", [p.stretch_specificity.value for p in evaluation.curve]),
    ):
        axes.plot(thresholds, values, label=label)
    axes.axvline(evaluation.model.threshold, color="k", linestyle=":", linewidth=1)
    axes.set(xlabel="threshold", ylim=(0, 1.5), title="studies")
    axes.legend()
    written.append(_save(figure, folder / f"{stem}-studies.png"))
    return written


def _save(figure: object, path: Path) -> Path:
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure  # type: ignore[import-not-found, unused-ignore]

    assert isinstance(figure, Figure)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
