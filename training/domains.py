"""What the shipped detectors look for: classes, input, intensities, series and recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from slicewatch.dataset_planning import LabelMap


@dataclass(frozen=True, slots=True)
class Domain:
    """One detector.

    Attributes:
        name: of the domain on the command line, and stem of its files in ``models/``.
        classes: in the order of their indices.
        size: edge of the square input, pixels.
        labels: which outlined structures are of which class.
        intensities: modality → preset of `slicewatch.pixels`; ``""`` for any other.
        series: TOML text of the ``[[series]]`` blocks the registry chooses by.
        priority: the higher wins where several models fit a series.
        recipe: Ultralytics' training arguments that differ from `RECIPE`.
        begins_from: domain that is trained before, and whose weights this one begins from when
            both are trained together; random weights where it is empty.
    """

    name: str
    classes: tuple[str, ...]
    size: int
    labels: LabelMap
    intensities: Mapping[str, str]
    series: str
    priority: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    begins_from: str = ""

    def intensity(self, modality: str) -> str:
        return self.intensities.get(modality, self.intensities[""])


RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        "model": "yolo26n.yaml",
        "pretrained": False,
        "optimizer": "AdamW",
        "weight_decay": 0.01,
        "lr0": 0.001,
        "lrf": 0.01,
        "cos_lr": True,
        "warmup_epochs": 2,
        "warmup_bias_lr": 0.0,
        "batch": 16,
        "nbs": 16,
        "amp": False,
        "cache": "ram",
        "workers": 2,
        "seed": 0,
        "deterministic": True,
        "plots": False,
        "hsv_h": 0.0,
        "hsv_s": 0.0,
        "hsv_v": 0.3,
        "degrees": 10.0,
        "scale": 0.5,
        "fliplr": 0.5,
    }
)

SOFT_TISSUE = Domain(
    name="soft-tissue",
    classes=("soft_tissue_mass",),
    size=192,
    labels=LabelMap(((r"GTV.*|.*mass.*|.*tumou?r.*", "soft_tissue_mass"),)),
    intensities=MappingProxyType({"CT": "ct_soft_tissue", "": "mr_percentile"}),
    series="""\
[[series]]
Modality = "CT"

[[series]]
Modality = "MR"
intensity = "mr_percentile"
BodyPartExamined = {not = {matches = "(?i)brain|head|skull|neuro|cereb"}}
""",
    priority=10,
    # The frames are cropped round the tumour: position and scale must not tell where it is.
    recipe=MappingProxyType(
        {"epochs": 90, "translate": 0.5, "flipud": 0.5, "mosaic": 0.4, "close_mosaic": 8}
    ),
    # There are seven times as many patients of the brain; what edges and masses look like is
    # learned from them first.
    begins_from="brain",
)

BRAIN = Domain(
    name="brain",
    classes=("meningioma", "glioma", "pituitary"),
    size=256,
    labels=LabelMap(
        (
            (r".*meningioma.*", "meningioma"),
            (r".*glioma.*|.*glioblastoma.*", "glioma"),
            (r".*pituitary.*|.*adenoma.*", "pituitary"),
        )
    ),
    intensities=MappingProxyType({"": "mr_percentile"}),
    series="""\
[[series]]
Modality = "MR"
BodyPartExamined = {matches = "(?i)brain|head|skull|neuro|cereb"}

[[series]]
Modality = "MR"
StudyDescription = {matches = "(?i)brain|head|skull|neuro|cereb"}

[[series]]
Modality = "MR"
SeriesDescription = {matches = "(?i)brain|head|skull|neuro|cereb"}
""",
    priority=20,
    recipe=MappingProxyType({"epochs": 110, "translate": 0.15, "mosaic": 0.4, "close_mosaic": 12}),
)

DOMAINS: Mapping[str, Domain] = MappingProxyType({d.name: d for d in (SOFT_TISSUE, BRAIN)})
