"""How much of what is done to real slices do the forensic checks see, and how often do they cry?

    python -m benchmarks.tampering --studies ../shared/data/soft-tissue [--json PATH]

Each manipulation is done to each series of at least 20 measured slices, at places that follow
from the seed, and the series is then checked as screening and assessment would. Detected is what
an issue of the pixel checks names one of the changed slices for. The untouched series give the
false alarms, with all integrity checks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.manipulations import LOCAL, WHOLE, Series, sites
from slicewatch import dicom
from slicewatch.forensics import copy_move, evidence, features, outliers, recompression, texture
from slicewatch.integrity import check
from slicewatch.records import Outcome, SliceResult

PIXEL_CODES = frozenset(
    line.code for module in (outliers, copy_move, texture, recompression) for line in module.CHECKS
)
MIN_SLICES = 20


def load(folder: Path) -> list[Series]:
    """Every series under a folder with enough slices of one size."""
    series: dict[str, list[tuple[SliceResult, NDArray[np.float32]]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.dcm")):
        data = path.read_bytes()
        instance = dicom.read(data)
        header = instance.header
        if not header.is_image:
            continue
        uids = header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid
        known = SliceResult(
            "/".join(uids) + ".dcm", hashlib.sha256(data).hexdigest(), Outcome.SCREENED, *uids,
            transfer_syntax_uid=header.transfer_syntax_uid, modality=header.modality,
            rows=header.rows, columns=header.columns, instance_number=header.instance_number,
            patient_hash=header.patient_hash, times=header.times, notes=header.notes,
        )  # fmt: skip
        known = evidence.with_object(known, data, instance)
        for frame in instance.frames():
            result = replace(known, frame=frame.number, geometry=frame.geometry,
                             pixel_sha256=frame.pixel_sha256)  # fmt: skip
            result = evidence.with_pixels(result, frame.values)
            if frame.values.min() < frame.values.max():
                series[header.series_instance_uid].append((result, frame.values))
    loaded: list[Series] = []
    for members in series.values():
        members.sort(key=lambda one: (one[0].geometry.position or (0.0, 0.0, 0.0))[2])
        results = tuple(result for result, _ in members)
        if len(members) >= MIN_SLICES and len({values.shape for _, values in members}) == 1:
            name = f"{len(loaded):02d}-{results[0].modality}"
            values = np.stack([values for _, values in members])
            loaded.append(Series(name, results[0].modality, results, values))
    return loaded


# --- measurement ------------------------------------------------------------------------------


def detect(series: Series, changed: dict[int, Any]) -> tuple[set[str], set[str]]:
    """Codes of the pixel checks that name a changed slice, and those that name none of them."""
    results = list(series.results)
    for z, image in changed.items():
        values = image.astype(np.float32)
        results[z] = replace(
            results[z],
            traces=features.measure(values, series.modality),
            pixel_sha256=hashlib.sha256(values.tobytes()).hexdigest(),
        )
        if results[z].acquisition.get("ImageType", "").startswith("DERIVED"):
            original = results[z].acquisition | {"ImageType": "ORIGINAL\\PRIMARY"}
            results[z] = replace(results[z], acquisition=original)
    blobs = {results[z].blob for z in changed}
    issues = [issue for issue in check(results) if issue.code in PIXEL_CODES]
    hits = {issue.code for issue in issues if blobs & set(issue.blobs)}
    return hits, {issue.code for issue in issues} - hits


def measure(loaded: Sequence[Series], seed: int, places: int) -> dict[str, Any]:
    """Detection by manipulation and modality, and false alarms."""
    rows: dict[str, Any] = {}
    for number, (name, manipulate) in enumerate((LOCAL | WHOLE).items()):
        rng = np.random.default_rng([seed, number])
        tried: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        strays = 0
        for index, series in enumerate(loaded):
            alike = [one for one in loaded if one.modality == series.modality and one != series]
            for site in sites(series, 1 if name in WHOLE else places, rng):
                changed = manipulate(series, site, rng, alike[index % len(alike)])
                if not changed:
                    continue
                hits, others = detect(series, changed)
                tried[series.modality] += 1
                seen[series.modality] += bool(hits)
                strays += bool(others)
                codes.update(hits)
        rows[name] = {
            "tried": dict(tried), "seen": dict(seen), "codes": dict(codes), "strays": strays,
        }  # fmt: skip
        shares = ", ".join(f"{key} {seen[key]} of {tried[key]}" for key in sorted(tried))
        print(f"{name:36} {shares:28} {', '.join(f'{c} {n}' for c, n in codes.most_common())}",
              flush=True)  # fmt: skip
    return rows


def cost(series: Sequence[Series], pixels: int = 256) -> float:
    """CPU time of measuring a slice of `pixels` × `pixels`, milliseconds, the best of rounds."""
    sample = [one.values[len(one.values) // 2] for one in series if one.modality == "CT"][:10]
    tiled = [np.tile(one, (-(-pixels // one.shape[0]), -(-pixels // one.shape[1])))
             [:pixels, :pixels].copy() for one in sample]  # fmt: skip
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        for image in tiled:
            features.measure(image, "CT")
        best = min(best, (time.process_time() - start) / len(tiled))
    return best * 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--places", type=int, default=2, help="manipulations of a series")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    loaded = load(chosen.studies)
    if len(loaded) < 4:
        print(f"{chosen.studies} holds {len(loaded)} series of {MIN_SLICES} slices; 4 are needed",
              file=sys.stderr)  # fmt: skip
        return 2
    alarms = {one.name: [issue.code for issue in check(one.results)] for one in loaded}
    loud = {name: codes for name, codes in alarms.items() if codes}
    print(f"{len(loaded)} series; false alarms on {len(loud)}: {loud}")
    milliseconds = {pixels: round(cost(loaded, pixels), 2) for pixels in (256, 512)}
    sizes = [len(json.dumps(result.traces.to_json())) for one in loaded
             for result in one.results if result.traces]  # fmt: skip
    print(f"CPU ms a slice by side: {milliseconds}; traces {round(float(np.mean(sizes)))} bytes")
    report = {
        "series": len(loaded),
        "false_alarm_series": len(loud),
        "cpu_ms_per_slice": milliseconds,
        "trace_bytes_mean": round(float(np.mean(sizes))),
        "detection": measure(loaded, chosen.seed, chosen.places),
    }
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
