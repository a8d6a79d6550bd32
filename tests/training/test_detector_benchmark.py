"""The comparison with Ultralytics runs, and writes the figures it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]


def test_each_system_detects_and_the_figures_have_their_keys(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.detector", "--json", str(out)]
    command += ["--slices", str(tmp_path), "--data", str(tmp_path)]  # none there: generated ones
    command += ["--count", "32", "--rounds", "1", "--seconds", "0.2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text("utf-8"))
    for key in (
        "ultralytics_pt_slices_per_s",
        "ultralytics_onnx_slices_per_s",
        "fp32_slices_per_s",
        "int8_slices_per_s",
        "fp32_over_ultralytics_onnx",
        "cold_start_ultralytics_s",
        "cold_start_s",
    ):
        assert figures[key] > 0, key
    assert figures["slices"] == 32
    assert figures["int8_map50_loss"] is None, "nothing to compare quality on"
